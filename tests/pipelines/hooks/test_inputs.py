"""A run whose inputs nobody has made is refused before any node runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.framework.project import configure_project
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node

from a2mae.pipelines.hooks import MadeInputs, MissingInputError

PIPELINE = Pipeline([node(lambda scenes, mine: [scenes, mine], ["scenes", "mine"], "made"), node(len, "made", "count")])


def check(project: Path, **paths: str) -> None:
    configure_project("a2mae")
    entries = {name: {"type": "json.JSONDataset", "filepath": path} for name, path in paths.items()}
    hook = MadeInputs()
    hook.after_context_created(SimpleNamespace(project_path=project))
    hook.before_pipeline_run(PIPELINE, DataCatalog.from_config(entries))


def test_the_stage_that_makes_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(
        MissingInputError, match=r"'scenes' \(data/scenes\.json\); .*--pipelines=ingest,.*data_root"
    ) as e:
        check(tmp_path, scenes="data/scenes.json", mine="mine.json", made="data/made.json", count="data/count.json")
    assert "mine" not in str(e.value), "what is there was called missing"
    assert "made" not in str(e.value).replace("not been made", ""), "what the run makes itself was asked for"


def test_what_no_stage_makes_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(MissingInputError, match=r"'mine' \(mine\.json\); no stage makes it"):
        check(tmp_path, scenes="scenes.json", mine="mine.json")


def test_what_is_there_or_far_away_is_not_asked_about(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text("{}")
    check(tmp_path, scenes=str(tmp_path / "scenes.json"), mine="s3://bucket/mine.json")
