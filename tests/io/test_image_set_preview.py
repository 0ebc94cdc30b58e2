"""What kedro-viz gets of the store: plain values that become JSON."""

import json

from a2mae.io.image_set_store import ImageSetStoreDataset
from a2mae.sensors import BUILTIN_SENSORS


class Store:
    sensors = ("naip",)

    def count(self, sensor):
        return 3

    def shape(self, sensor):
        return (4, 8, 8)

    def sensor(self, sensor):
        return BUILTIN_SENSORS[sensor]


def test_preview_is_json(tmp_path, monkeypatch):
    dataset = ImageSetStoreDataset(filepath=str(tmp_path / "s.zarr"))
    monkeypatch.setattr(dataset, "_open", Store)
    shown = json.loads(json.dumps(dataset.preview()))
    assert shown["data"] == [["naip", 3, "(4, 8, 8)", 1]]
