"""What parameters name stands in the record of the node that reads it, and of no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from kedro.framework.project import configure_project
from kedro.io import DataCatalog

from a2mae.pipelines.hooks import Lineage
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
        node for node in create_pipeline("segment").nodes if node.name in ("segment.prepare_data", "segment.draw_map")
    ]
    entries = {"segment.data": "task.json", "segment.map": "map.json"}
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
        (output,) = step.outputs
        catalog.save(output, {})
        hook.after_dataset_saved(output, {}, step)
    records = {
        name: read_record(tmp_path / "data/lineage" / f"segment.{name}.json") for name in ("prepare_data", "draw_map")
    }
    (key,) = records["prepare_data"].inputs
    entry = records["prepare_data"].inputs[key]
    assert (key, entry.path, list(entry.files)) == ("segment.data.folder", "../labels", ["one.tif"])
    assert not records["draw_map"].inputs
