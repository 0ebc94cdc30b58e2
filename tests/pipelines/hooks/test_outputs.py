"""Folders that cannot be written to are refused before any node runs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node

from a2mae.pipelines.hooks import OutputFolderError, WritableOutputs

PIPELINE = Pipeline([node(lambda: 1, None, "first"), node(lambda: 2, None, "second")])


def check(project: Path, first: str, second: str) -> None:
    catalog = DataCatalog.from_config(
        {name: {"type": "json.JSONDataset", "filepath": path} for name, path in (("first", first), ("second", second))}
    )
    hook = WritableOutputs()
    hook.after_context_created(SimpleNamespace(project_path=project))
    hook.before_pipeline_run(PIPELINE, catalog)


def test_folders_that_are_yet_to_be_made_are_fine(tmp_path: Path) -> None:
    check(tmp_path, "data/01_raw/deep/one.json", "data/two.json")
    assert not (tmp_path / "data").exists(), "looking made a folder"


def test_a_file_in_a_folders_place_is_named_with_all_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(OutputFolderError, match=r"data is a file, needed for first, second.*data_root"):
        check(tmp_path, "data/01_raw/one.json", "data/two.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o555)
    with pytest.raises(OutputFolderError, match=r"data is not writable by this user, needed for first"):
        check(tmp_path, "data/01_raw/one.json", "elsewhere/two.json")
