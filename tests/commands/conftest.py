"""A project that commands work in."""

import shutil

import pytest

from helpers.checkout import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of this configuration, whose runs find this source."""
    folder = tmp_path / "project"
    folder.mkdir()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text(text.replace('source_dir = "src"', 'source_dir = "."'))
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=lambda _, names: set(names) & {"local", "mine"})
    (folder / "conf/local").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    return folder
