"""What kedro-viz gets to show: pictures of the store, of maps and of task samples."""

import base64
import io
import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from a2mae.pipelines.datasets import ImageSetStoreDataset, PicturesDataset, RasterDataset
from a2mae.report.pictures import INVALID_RGB
from a2mae.report.previews import sheet
from helpers.built_world import write_store
from helpers.task_samples import SENTINEL2


def picture(preview: str) -> np.ndarray:
    """What the browser decodes; it must pass through JSON."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(json.loads(json.dumps(preview))))).convert("RGB"))


def test_a_store_is_a_contact_sheet(tmp_path):
    pixels = np.zeros((len(SENTINEL2.bands), 16, 16), np.uint16)
    pixels[SENTINEL2.band_names.index("B04"), :8] = 3000  # the upper half is red
    write_store(tmp_path / "s.zarr", {SENTINEL2.id: [(pixels, np.ones((16, 16), bool))] * 3})
    shown = picture(ImageSetStoreDataset(filepath=str(tmp_path / "s.zarr")).preview())
    assert shown.shape == (104, 804, 3)
    red, black, paper = shown[20, 20], shown[90, 20], shown[20, 320]
    assert red[0] > 200 and red[1] < 60 and black.max() < 60 and paper.min() == 255  # three images, then paper


@pytest.mark.parametrize("folder", [False, True])
def test_a_map_has_its_own_colours(tmp_path, folder):
    path = tmp_path / ("out/map.tif" if folder else "map.tif")
    path.parent.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "width": 40, "height": 20, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=from_origin(0, 0, 10, 10), **profile) as target:
        target.write(np.repeat(np.array([[0, 1]], np.uint8), 20, axis=1).repeat(20, axis=0), 1)
        target.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 50, 255)})
    shown = picture(RasterDataset(filepath=str(path.parent if folder else path)).preview())
    assert shown.shape == (20, 40, 3)
    assert tuple(shown[5, 5]) == (10, 20, 30) and tuple(shown[5, 35]) == (200, 100, 50)


def test_task_pictures_stand_over_their_truth_and_answer(tmp_path):
    arrays = {
        "image": np.full((2, 8, 8, 3), 90, np.uint8),
        "truth": np.array([0, 1], np.uint8),
        "prediction": np.array([1, 1], np.uint8),
        "class_names": np.array(["a", "b"]),
    }
    np.savez(tmp_path / "p.npz", **arrays)
    shown = picture(PicturesDataset(filepath=str(tmp_path / "p.npz")).preview())
    assert shown.shape == (304, 804, 3)
    assert (shown[120, 20] != shown[220, 20]).any() and (shown[120, 120] == shown[220, 120]).all()


def test_several_classes_of_a_picture_are_stripes(tmp_path):
    several = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    colours = np.array([[10, 0, 0], [20, 0, 0], [30, 0, 0]], np.uint8)
    arrays = {"image": np.full((2, 8, 8, 3), 90, np.uint8), "truth": several, "prediction": several}
    np.savez(tmp_path / "p.npz", class_colours=colours, **arrays)
    shown = picture(PicturesDataset(filepath=str(tmp_path / "p.npz")).preview())
    assert (tuple(shown[120, 20]), tuple(shown[120, 80])) == ((10, 0, 0), (30, 0, 0))
    assert tuple(shown[120, 120]) == tuple(shown[120, 180]) == INVALID_RGB  # none of them


def test_a_sheet_is_white_where_nothing_is():
    assert (sheet([[], []], columns=2, cell_px=10) == 255).all()
