"""A parameter that names a file which is not there is told before hours of training, not after."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from a2mae.pipelines.hooks import NamedFileError, NamedFiles
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters

PIPELINE = Pipeline(
    [
        node(lambda options: options, "params:segment", "made", name="segment.prepare_data"),
        node(lambda options: options, "params:segment", "map", name="segment.draw_map"),
        node(lambda options: options, "params:evaluate", "scores", name="evaluate"),
    ]
)


def check(
    project: Path,
    *,
    segment: dict[str, object],
    others: list[dict[str, object]] | None = None,
    pipeline: Pipeline = PIPELINE,
) -> None:
    catalog = DataCatalog.from_config({"made": {"type": "json.JSONDataset", "filepath": "data/made.json"}})
    catalog["params:segment"] = MemoryDataset(TaskParameters.model_validate({"task": "segment", **segment}))
    catalog["params:evaluate"] = MemoryDataset(EvaluateParameters.model_validate({"others": others or []}))
    hook = NamedFiles()
    hook.after_context_created(SimpleNamespace(project_path=project))
    hook.before_pipeline_run(pipeline, catalog)


def test_every_path_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    timm = {"name": "resnet", "kind": "timm", "model": "resnet18", "weights": "nowhere.pth"}
    with pytest.raises(NamedFileError) as told:
        check(tmp_path, segment={"data": {"folder": "field"}, "map": {"raster": "scene.tif"}}, others=[timm])
    for part in (
        "evaluate.others.0.weights is 'nowhere.pth'",
        "segment.data.folder is 'field'",
        "segment.map.raster is 'scene.tif'",
        f"start from {Path.cwd()}",
    ):
        assert part in str(told.value)


def test_what_is_there_far_away_or_made_by_the_run_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "field").mkdir()
    check(tmp_path, segment={"data": {"folder": "field"}, "map": {"raster": "s3://bucket/scene.tif"}})
    check(tmp_path, segment={"map": {"raster": "/vsicurl/https://example.org/scene.tif"}})
    check(tmp_path, segment={"data": {"folder": str(tmp_path / "data" / "made.json")}})
    with pytest.raises(NamedFileError, match="data/other"):
        check(tmp_path, segment={"data": {"folder": str(tmp_path / "data" / "other")}})


def test_a_path_is_asked_for_only_where_its_reader_runs(tmp_path: Path) -> None:
    both: dict[str, object] = {"data": {"folder": "moved away"}, "map": {"raster": "scene.tif"}}
    with pytest.raises(NamedFileError, match=r"segment\.map\.raster") as told:
        check(tmp_path, segment=both, pipeline=PIPELINE.only_nodes("segment.draw_map"))
    assert "moved away" not in str(told.value)
    with pytest.raises(NamedFileError, match=r"segment\.map\.raster"):  # it opens what is to be mapped, too
        check(tmp_path, segment=both, pipeline=PIPELINE.only_nodes("segment.prepare_data"))
    check(tmp_path, segment=both, pipeline=PIPELINE.only_nodes("evaluate"))
