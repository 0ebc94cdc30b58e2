from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import rasterio

from a2mae.errors import A2maeError
from a2mae.files import file_digest
from a2mae.simulate import run
from a2mae.simulate.delivery.manifest import Manifest, read_manifest
from a2mae.simulate.run import tiny_parameters, write_tiny_world


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_seed_writes_the_same_bytes_with_any_workers_and_another_seed_others(tiny, tmp_path):
    folder, manifest = tiny
    again = run.simulate(tiny_parameters(3).model_copy(update={"workers": 2}), tmp_path / "again")
    assert again.content_hash == manifest.content_hash
    assert _files(tmp_path / "again") == _files(folder)
    assert write_tiny_world(tmp_path / "other", seed=4).content_hash != manifest.content_hash


def test_the_manifest_names_every_file_with_its_digest(tiny):
    folder, manifest = tiny
    found = _files(folder)
    assert found.pop("manifest.json")
    assert found == manifest.files
    assert read_manifest(folder) == manifest


def test_a_run_that_was_cut_short_is_completed_to_the_same_bytes(tiny, tmp_path, monkeypatch):
    whole, _ = tiny
    folder = tmp_path / "cut"
    real, done = run._make_scene, []

    def stop_at_the_third(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return real(*args)

    monkeypatch.setattr(run, "_make_scene", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run.simulate(tiny_parameters(3), folder)
    assert not (folder / "manifest.json").exists()
    # A file torn by the kill, and one that was never given its name.
    torn = next((folder / "sentinel-2-l2a").rglob("B04.tif"))
    torn.write_bytes(torn.read_bytes()[:100])
    (torn.parent / ".B08.tif.4242.part").write_bytes(b"half")
    made = []
    monkeypatch.setattr(run, "_make_scene", lambda *args: made.append(args) or real(*args))
    run.simulate(tiny_parameters(3), folder)
    assert 0 < len(made) < 5  # finished scenes were kept, the torn one was made again
    assert _files(folder) == _files(whole)


def test_a_complete_folder_is_left_alone_and_other_parameters_replace_it(tmp_path, monkeypatch):
    folder = tmp_path / "world"
    small = tiny_parameters(1).model_copy(
        update={"acquisitions": {"landsat-oli-c2-l2": tiny_parameters(1).acquisitions["landsat-oli-c2-l2"]}}
    )
    first = run.simulate(small, folder)
    monkeypatch.setattr(run, "_make_scene", lambda *args: pytest.fail("nothing was to be done"))
    assert run.simulate(small, folder) == first
    monkeypatch.undo()
    whole, scene = _files(folder), folder / next(path for path in first.files if path.endswith("red.tif"))
    scene.write_bytes(scene.read_bytes()[:-1] + b"x")  # of the same size
    assert run.simulate(small, folder) == first and _files(folder) == whole
    second = run.simulate(small.model_copy(update={"seed": 2}), folder)
    assert second.content_hash != first.content_hash
    assert _files(folder).keys() == {*second.files, "manifest.json"}


def test_every_module_of_the_simulation_decides_its_fingerprint(monkeypatch):
    read, real = set(), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.add(path), real(path))[1])
    run._fingerprint(tiny_parameters(3))
    assert read >= set(Path(run.__file__).parent.rglob("*.py"))


def test_catalog_is_valid_stac_and_tells_what_the_files_hold(tiny):
    folder, manifest = tiny
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert {item.id for item in items} == {scene.scene_id for scene in manifest.scenes}
    for entry in (catalog, *catalog.get_children(), *items):
        # The extensions' schemas are on the network: the core is checked from pystac's own copies.
        content = entry.to_dict(include_self_link=False)
        content["stac_extensions"] = []
        pystac.validation.validate_dict(content)
    for item in items:
        item.make_asset_hrefs_absolute()
        for key, asset in item.assets.items():
            with rasterio.open(asset.href) as source:
                extra = asset.extra_fields
                assert list(source.shape) == extra["proj:shape"], key
                assert source.crs.to_string() == item.properties["proj:code"]
                assert list(source.transform)[:6] == pytest.approx(extra["proj:transform"])
                assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                for index, layer in enumerate(extra["raster:bands"]):
                    assert source.dtypes[index] == layer["data_type"]
                    assert source.nodatavals[index] == layer["nodata"]
                    assert source.scales[index] == layer.get("scale", 1.0)
                    assert source.offsets[index] == layer.get("offset", 0.0)
                if "eo:bands" in extra:
                    assert list(source.descriptions) == [band["name"] for band in extra["eo:bands"]]


def test_truth_lies_beside_the_scenes(tiny):
    folder, manifest = tiny
    region = manifest.regions[0]
    with rasterio.open(folder / region.land_cover["before"]) as before, rasterio.open(folder / region.change) as change:
        assert before.crs.to_string() == region.crs
        assert before.res == (region.truth_gsd_m, region.truth_gsd_m)
        assert set(np.unique(before.read(1))) <= {entry.value for entry in manifest.classes}
        assert before.colormap(1)[1][:3] == manifest.classes[0].color
        with rasterio.open(folder / region.land_cover["after"]) as after:
            assert np.array_equal(change.read(1), before.read(1) != after.read(1))
        assert change.read(1).mean() == pytest.approx(region.changed_share, abs=1e-6)
    table = pq.read_table(folder / manifest.truth_scenes)
    assert table["scene_id"].to_pylist() == [scene.scene_id for scene in manifest.scenes]
    for row in table.to_pylist():
        with rasterio.open(folder / f"truth/clouds/{row['scene_id']}.tif") as clouds:
            assert (clouds.read(1) == 1).mean() == pytest.approx(row["cloud_fraction"], abs=1e-6)


def test_both_forms_of_sentinel2_counts_hold_the_same_reflectance(tiny):
    folder, _ = tiny
    means = {}
    for item in pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True):
        if item.collection_id == "sentinel-2-l2a":
            layer = item.assets["B11"].extra_fields["raster:bands"][0]
            with rasterio.open(folder / "sentinel-2-l2a" / item.id / "B11.tif") as source:
                counts = source.read(1, masked=True)
            means[item.properties["s2:processing_baseline"]] = (
                counts.min(),
                np.ma.median(counts * layer["scale"] + layer["offset"]),
            )
    assert set(means) == {"02.14", "05.09"}
    assert means["05.09"][0] >= 900 > means["02.14"][0]  # darkest pixels tell the offset
    assert means["05.09"][1] == pytest.approx(means["02.14"][1], abs=0.06)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(A2maeError, match="data_root"):
        run.simulate(tiny_parameters(), tmp_path / "file" / "world")


def test_a_torn_manifest_is_a_clear_error(tmp_path):
    with pytest.raises(A2maeError, match="kedro run"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": ')
    with pytest.raises(ValueError, match="simulate again"):
        read_manifest(tmp_path)


def test_every_manifest_path_is_relative(tiny):
    _, manifest = tiny
    assert isinstance(manifest, Manifest)
    assert not [path for path in manifest.files if Path(path).is_absolute() or ".." in path]
