"""Published annual embeddings as a store: numbers as their providers define them, places that are found."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform

from a2mae.commands import main
from a2mae.errors import InputError
from a2mae.explore.foreign import import_cogs
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.results import search_archive
from a2mae.explore.store import open_store
from helpers.access import as_anybody, shared_folder

UTM, WEST, NORTH = "EPSG:32654", 384_420.0, 3_952_180.0
SIDE = 96


def covers(seed=0):
    """Squares of 16 pixels of three covers."""
    return np.kron(np.random.default_rng(seed).integers(0, 3, (SIDE // 16, SIDE // 16)), np.ones((16, 16), int))


def vectors(count, seed=1):
    """A vector of length 1 for each cover."""
    found = np.random.default_rng(seed).standard_normal((3, count))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def write(path, pixels, *, names=(), scale=None, nodata=None, flipped=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Affine(10, 0, WEST, 0, 10, NORTH - 10 * SIDE) if flipped else Affine(10, 0, WEST, 0, -10, NORTH)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=SIDE, width=SIDE, dtype=pixels.dtype, crs=UTM,
        transform=place, nodata=nodata,
    ) as target:  # fmt: skip
        target.write(pixels[:, ::-1] if flipped else pixels)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        if scale is not None:
            target.scales = (scale,) * len(pixels)
    return path


def alpha_earth(folder, year=2024, *, flipped=False, hole=True, named=True):
    """As the bucket has it: int8, 64 bands, a folder per year and UTM zone."""
    values = vectors(64)[covers()].transpose(2, 0, 1)
    counts = np.clip(np.round(np.sign(values) * np.sqrt(np.abs(values)) * 127.5), -127, 127).astype(np.int8)
    if hole:
        counts[:, :16, :16] = -128
    names = [f"A{number:02}" for number in range(64)] if named else ()
    return write(folder / f"annual/{year}/54N/x-0000.tiff", counts, names=names, nodata=-128, flipped=flipped)


def tessera(folder, year=2024):
    """As geotessera exports it: float32, 128 bands, the year in the name."""
    values = vectors(128)[covers()].transpose(2, 0, 1).astype(np.float32)
    return write(folder / f"grid_136.05_35.65_{year}.tif", values)


@pytest.mark.parametrize("named", [True, False])
def test_alpha_earth_has_the_numbers_of_its_definition(tmp_path, named):
    alpha_earth(tmp_path / "aef", named=named)
    store = import_cogs(tmp_path / "aef", tmp_path / "store", block_px=16)
    assert (store.count("image"), store.about.dimensions) == (35, 64), "a block of which nothing was seen has no row"
    found = np.concatenate([block.vectors for block in store.blocks("image")])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.02)
    nearest = np.abs(found[:, None] - vectors(64)[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 0.01
    rows = store.table("image", ["sensor", "datetime"]).to_pandas()
    assert set(rows["sensor"]) == {"alphaearth"} and set(rows["datetime"].dt.year) == {2024}


@pytest.mark.parametrize(("make", "bands"), [(alpha_earth, 64), (tessera, 128)])
def test_places_of_the_same_cover_are_found_first(tmp_path, make, bands):
    make(tmp_path / "files")
    store = import_cogs(tmp_path / "files", tmp_path / "store", block_px=16)
    grid = covers()[::16, ::16]
    (lon,), (lat,) = transform(UTM, "EPSG:4326", [WEST + 160 * 2 + 80], [NORTH - 160 * 3 - 80])
    alike = int((grid == grid[3, 2]).sum()) - 1 - int(bands == 64 and grid[0, 0] == grid[3, 2])
    hits = search_archive(SearchParameters(point=(lon, lat), top=alike), store, tmp_path / "found")
    assert len(hits) == alike and (hits["score"] > 0.9).all()
    x, y = transform("EPSG:4326", UTM, hits["lon"].tolist(), hits["lat"].tolist())
    row, column = (NORTH - np.array(y)) // 160, (np.array(x) - WEST) // 160
    assert (grid[row.astype(int), column.astype(int)] == grid[3, 2]).all()
    assert gpd.read_file(tmp_path / "found/hits.geojson")["id"].tolist() == hits["id"].tolist()


def test_rows_stored_from_the_south_are_the_same_ground(tmp_path):
    stores = []
    for name, flipped in (("down", False), ("up", True)):
        alpha_earth(tmp_path / name, flipped=flipped)
        stores.append(import_cogs(tmp_path / name, tmp_path / f"{name}_store", block_px=16))
    both = []
    for store in stores:
        ids = store.table("image", ["id"])["id"].to_pylist()
        order = np.argsort(ids)
        both.append((sorted(ids), store.take("image", order).vectors))
    assert both[0][0] == both[1][0]
    np.testing.assert_array_equal(both[0][1], both[1][1])


def test_a_year_that_is_new_is_added_and_one_that_is_gone_removed(tmp_path):
    first = alpha_earth(tmp_path / "aef", 2023)
    store = import_cogs(tmp_path / "aef", tmp_path / "store", block_px=32)
    before = {path: path.stat().st_mtime_ns for path in store.parts()}
    alpha_earth(tmp_path / "aef", 2024)
    store = import_cogs(tmp_path / "aef", tmp_path / "store", block_px=32)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in store.parts()}.items()
    assert store.count("image") == 18
    places = store.table("image", ["location_id"])["location_id"].to_pylist()
    assert len(set(places)) == 9, "the same ground in both years"
    first.unlink()
    assert import_cogs(tmp_path / "aef", tmp_path / "store", block_px=32).count("image") == 9


def test_a_folder_that_cannot_be_read_is_told_and_its_vectors_stay(tmp_path):
    with shared_folder() as files:
        alpha_earth(files, 2023)
        shut = alpha_earth(files, 2024).parent
        count = import_cogs(files, tmp_path / "store", block_px=32).count("image")
        shut.chmod(0o000)
        with as_anybody(), pytest.raises(InputError) as refused:
            import_cogs(files, tmp_path / "store", block_px=32)
        assert str(refused.value) == (
            f"{shut}: the folder cannot be read (Permission denied): what it holds is not seen; change its access"
        )
        assert open_store(tmp_path / "store").count("image") == count == 18


def test_linked_folders_and_endings_in_capitals_are_read_and_links_back_are_told(tmp_path, caplog):
    alpha_earth(tmp_path / "nas", 2023)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/more").symlink_to(tmp_path / "nas")
    (tmp_path / "own/back").symlink_to(tmp_path / "own")
    alpha_earth(tmp_path / "own", 2024).rename(tmp_path / "own/x_2024.TIF")
    store = import_cogs(tmp_path / "own", tmp_path / "store", block_px=32)
    assert set(store.table("image", ["datetime"]).to_pandas()["datetime"].dt.year) == {2023, 2024}
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path / 'own'}: back is a link to files that are found without it"
    ]


def test_counts_with_a_scale_are_multiplied_by_it(tmp_path):
    counts = np.full((16, SIDE, SIDE), 50, np.int8)
    write(tmp_path / "own_2022.tif", counts, scale=0.02)
    store = import_cogs(tmp_path / "own_2022.tif", tmp_path / "store", block_px=96)
    np.testing.assert_allclose(store.take("image", [0]).vectors, 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder.mkdir(), r"has no .tif or .tiff: name a folder of annual embeddings"),
        (
            lambda folder: write(folder / "rgb_2024.tif", np.ones((3, SIDE, SIDE), np.uint8)),
            r"has 3 bands of uint8 and is no raster of embeddings: at least 8 bands",
        ),
        (
            lambda folder: write(folder / "x_2024.tif", np.ones((16, SIDE, SIDE), np.int8)),
            r"int8 counts without a scale, and is not of AlphaEarth's 64 bands",
        ),
        (
            lambda folder: write(folder / "x.tif", np.ones((16, SIDE, SIDE), np.float32)),
            r"does not tell its year: have it in the file's name or its folder's",
        ),
        (
            lambda folder: (alpha_earth(folder), tessera(folder)),
            r"files of 64 bands of alphaearth and 128 bands of tessera, which cannot be compared",
        ),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path, make, sentence):
    make(tmp_path / "files")
    with pytest.raises(ValueError, match=sentence):
        import_cogs(tmp_path / "files", tmp_path / "store", block_px=16)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e300])
def test_files_that_show_nothing_are_told(tmp_path, value):
    write(tmp_path / "files" / "x_2024.tif", np.full((16, SIDE, SIDE), value))
    with pytest.raises(InputError, match="files shows nothing: every pixel is nodata, zero or no number"):
        import_cogs(tmp_path / "files", tmp_path / "store", block_px=16)


@pytest.mark.parametrize("block_px", [0, -1, 1025, 10**30])
def test_a_block_is_bounded(tmp_path, block_px):
    alpha_earth(tmp_path / "files")
    with pytest.raises(InputError, match="a block has 1 to 1,024 pixels a side, found"):
        import_cogs(tmp_path / "files", tmp_path / "store", block_px=block_px)


@pytest.mark.parametrize(
    ("crs", "transform", "sentence"),
    [
        (None, Affine(10, 0, WEST, 0, -10, NORTH), "no coordinate reference system"),
        (UTM, Affine(10, 0, np.nan, 0, -10, NORTH), "cannot be read"),
        (UTM, Affine(10, 0, 1e12, 0, -10, NORTH), "cannot be read"),
        (UTM, Affine(0, 0, WEST, 0, 0, NORTH), "pixels of no size"),
        ("EPSG:4978", Affine(10, 0, WEST, 0, -10, NORTH), "a geocentric coordinate reference system"),
        ('LOCAL_CS["site",UNIT["metre",1]]', Affine(10, 0, WEST, 0, -10, NORTH), "local coordinate reference system"),
    ],
)
def test_embeddings_that_lie_nowhere_are_refused(tmp_path, crs, transform, sentence):
    path = tessera(tmp_path / "files")
    with rasterio.open(path, "r+") as target:
        pixels = target.read()
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=SIDE, width=SIDE, dtype=pixels.dtype, crs=crs,
        transform=transform,
    ) as target:  # fmt: skip
        target.write(pixels)
    with pytest.raises(InputError, match=sentence):
        import_cogs(tmp_path / "files", tmp_path / "store", block_px=16)


def test_a_file_that_was_cut_short_is_named(tmp_path):
    path = tessera(tmp_path / "files")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"{path.name} is cut short"):
        import_cogs(tmp_path / "files", tmp_path / "store", block_px=16)


def test_the_command_searches_a_folder_of_cogs(tmp_path, capsys):
    alpha_earth(tmp_path / "aef")
    (lon,), (lat,) = transform(UTM, "EPSG:4326", [WEST + 400], [NORTH - 560])
    command = ["search", str(tmp_path / "found"), "--cogs", str(tmp_path / "aef"), "--block-px", "16", "--top", "3"]
    assert main([*command, "--point", str(lon), str(lat)]) == 0
    said = capsys.readouterr().out
    assert "3 hits" in said and "hits.geojson" in said and "2024-01-01" in said
    assert main([*command, "--point", str(lon), str(lat)]) == 1
    assert "found is there already: name what is not" in capsys.readouterr().err
    other = ["search", str(tmp_path / "other"), *command[2:]]
    assert main(other) == 1
    assert "name what to look for: --point, --examples, --chip or --ids" in capsys.readouterr().err
    assert main([*other, "--point", "3", "47"]) == 1
    assert "lies outside the archive; the nearest place is at" in capsys.readouterr().err


def test_a_file_that_names_others_is_told_and_not_followed(tmp_path):
    whole = tessera(tmp_path / "elsewhere")
    (tmp_path / "given").mkdir()
    vrt = tmp_path / "given" / "grid_136.05_35.65_2024.tif"
    with rasterio.open(whole) as source:
        bands = "".join(
            f'<VRTRasterBand dataType="Float32" band="{number}"><SimpleSource><SourceFilename>{whole}</SourceFilename>'
            f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
            for number in source.indexes
        )
        vrt.write_text(f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS>{bands}</VRTDataset>')
    with rasterio.open(vrt) as followed:
        assert followed.count == 128, "GDAL by itself would read it"
    with pytest.raises(InputError, match=r"grid_136\.05_35\.65_2024\.tif"):
        import_cogs(tmp_path / "given", tmp_path / "store", block_px=16)
