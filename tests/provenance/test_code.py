"""Code dependencies: imports are followed, types are not, and a program that is started counts."""

from pathlib import Path

import pytest

from a2mae.dvc import code_of

FILES = {
    "__init__.py": "from a2mae.heavy import thing",
    "heavy.py": "",
    "base.py": "",
    "tool.py": "import a2mae.base",
    "unused.py": "",
    "run/__init__.py": "",
    "run/__main__.py": "from a2mae.run.loop import go",
    "run/loop.py": "",
    "run/other.py": "",
    "some/__init__.py": "",
    "some/needed.py": "",
    "some/other.py": "",
    "some/another.py": "",
    "whole/__init__.py": "",
    "whole/one.py": "",
    "pipelines/__init__.py": "",
    "pipelines/other/__init__.py": "",
    "pipelines/go/__init__.py": "",
    "pipelines/go/pipeline.py": "from a2mae.pipelines.go.nodes import f",
    "pipelines/go/nodes.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from a2mae.unused import X\n"
        "def f():\n    from a2mae import tool\n    from a2mae.some import needed\n    import a2mae.whole.one\n"
        "    start('a2mae.run')\n"
    ),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "src" / "a2mae" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "src"


def test_follows_what_runs_and_nothing_else(source: Path):
    assert code_of("a2mae.pipelines.go", source) == [
        "src/a2mae/base.py",
        "src/a2mae/pipelines/__init__.py",
        "src/a2mae/pipelines/go",
        "src/a2mae/run",
        "src/a2mae/some/__init__.py",
        "src/a2mae/some/needed.py",
        "src/a2mae/tool.py",
        "src/a2mae/whole",
    ]


def test_every_path_exists(source: Path):
    assert all((source.parent / path).exists() for path in code_of("a2mae.pipelines.go", source))
