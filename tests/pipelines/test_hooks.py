"""What parameters name stands in the record of the node that reads it, and of no other."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.framework.project import configure_project
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node

from a2mae.files import WriteError
from a2mae.locks import LockedError, locked
from a2mae.pipelines.hooks import Checks, Lineage
from a2mae.pipelines.tasks import create_pipeline
from a2mae.provenance.record import read_record
from a2mae.tasks.parameters import TaskParameters


def test_labels_are_recorded_where_they_are_read(tmp_path: Path) -> None:
    configure_project("a2mae")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "one.tif").write_bytes(b"pixels")
    options = TaskParameters.model_validate({"task": "segment", "data": {"folder": str(labels)}})
    nodes = [
        one for one in create_pipeline("segment").nodes if one.name in ("segment.prepare_data", "segment.draw_map")
    ]
    entries = {"segment.data": "task.json", "segment.map": "map.json", "segment.confidence": "confidence.json"}
    catalog = DataCatalog.from_config(
        {
            name: {"type": "json.JSONDataset", "filepath": str(tmp_path / "data" / path)}
            for name, path in entries.items()
        }
    )
    hook = Lineage(SimpleNamespace(made=lambda *_: None))
    hook.after_context_created(SimpleNamespace(config_loader={"globals": {"data_root": "data"}}, project_path=tmp_path))
    for step in nodes:
        hook.before_node_run(step, catalog, {"params:segment": options})
        for output in step.outputs:
            catalog.save(output, {})
            hook.after_dataset_saved(output, {}, step)
    records = {
        name: read_record(tmp_path / "data/lineage" / f"segment.{name}.json") for name in ("prepare_data", "draw_map")
    }
    (key,) = records["prepare_data"].inputs
    entry = records["prepare_data"].inputs[key]
    assert (key, entry.path, list(entry.files)) == ("segment.data.folder", "../labels", ["one.tif"])
    assert not records["draw_map"].inputs


def checked(project: Path) -> tuple[Checks, Pipeline, DataCatalog]:
    """A run of one node that is about to begin."""
    configure_project("a2mae")
    catalog = DataCatalog.from_config(
        {
            "made": {"type": "json.JSONDataset", "filepath": str(project / "data/08/made.json")},
            "store": {"type": "a2mae.pipelines.datasets.PathDataset", "filepath": str(project / "data/03/store.zarr")},
            "run": {
                "type": "a2mae.pipelines.datasets.RunDirectory",
                "filepath": str(project / "data/06/run"),
                "metadata": {"dvc": {"kind": "untracked"}},
            },
        }
    )
    hook = Checks()
    hook._project, hook._data_root = project, project / "data"
    return hook, Pipeline([node(lambda run: (1, 2), "run", ["made", "store"])]), catalog


def test_what_killed_writers_left_of_a_run_s_outputs_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    hook, pipeline, catalog = checked(tmp_path)
    left = ["08/.made.json.12.part", "03/store.zarr/a/c/.0.7.part", "03/.store.zarr.partial/x", "06/run/.part.9.part"]
    staying = [
        "08/made.json",
        "08/.other.json.12.part",
        "03/store.zarr/a/c/0",
        "06/run/part",
        "real/08/.made.json.1.part",
    ]
    for name in (*left, *staying):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("x")
    hook.before_pipeline_run(pipeline, catalog)
    hook.after_pipeline_run()
    found = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert found == set(staying)


def test_of_two_runs_on_one_data_folder_the_second_is_refused(tmp_path: Path) -> None:
    first, pipeline, catalog = checked(tmp_path)
    first.before_pipeline_run(pipeline, catalog)
    second, *_ = checked(tmp_path)
    with pytest.raises(LockedError, match=r"another run works in .*data \(process \d+ on .*since"):
        second.before_pipeline_run(pipeline, catalog)
    first.before_pipeline_run(pipeline, catalog)  # of the same session, which was interrupted
    first.on_pipeline_error()
    second.before_pipeline_run(pipeline, catalog)
    second.after_pipeline_run()


def test_what_a_training_that_outlived_its_run_is_writing_stays(tmp_path: Path) -> None:
    hook, pipeline, catalog = checked(tmp_path)
    part = tmp_path / "data/06/run/.state.json.9.part"
    with locked(part.parent):
        part.write_text("x")
        hook.before_pipeline_run(pipeline, catalog)
    assert part.exists()
    hook.before_pipeline_run(pipeline, catalog)
    assert not part.exists()
    hook.after_pipeline_run()


def test_a_full_disk_in_a_node_is_said_with_its_place(tmp_path: Path) -> None:
    hook, pipeline, catalog = checked(tmp_path)
    (step,) = pipeline.nodes
    with pytest.raises(WriteError, match=r"data/08/made.json: No space left on device; make room there"):
        hook.on_node_error(OSError(errno.ENOSPC, "No space left on device"), step, catalog)
    with pytest.raises(WriteError, match=r"cannot read or write /x/y: Permission denied; change its access"):
        hook.on_node_error(PermissionError(errno.EACCES, "Permission denied", "/x/y"), step, catalog)
    hook.on_node_error(ValueError("no"), step, catalog)
