"""The map page in a real browser, from a folder: layers, opacity, a swipe between dates, clicks, search results."""

from __future__ import annotations

import json
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import transform

from a2mae.explore import tiles
from a2mae.explore.map_layers import DrawnMap, areas_of, image_layers, map_layers
from a2mae.explore.map_page import MapInputs, write_map
from a2mae.explore.parameters import SearchParameters
from a2mae.explore.results import search_archive
from a2mae.explore.tiles import NOTHING, TILE_PX, GroundPicture, cut_tiles, palette_png
from a2mae.raster.footprints import transformer
from a2mae.tasks.transitions import transition_colors, transition_names
from helpers.browser import BROWSER, browser

from .conftest import COLOURS, NAMES, ORIGIN, SIDE_DEG, UTM, patchy
from .conftest import write_map as write_class_map


def with_grids(locations):
    """Locations as the ingest stage writes them: with the square in the UTM zone."""
    centres = shapely.get_coordinates(shapely.centroid(locations.geometry.to_numpy()))
    lon, lat = centres[:, 0], centres[:, 1]
    x, y = transformer("EPSG:4326", UTM).transform(lon, lat)
    return locations.assign(lon=lon, lat=lat, crs=UTM, x_m=x - 320, y_m=y + 320, footprint_m=640.0)


@pytest.fixture(scope="module")
def inputs(archive, embedded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    classes = patchy((70, 90))
    # On the ground of the first places.
    path, confidence = write_class_map(folder / "made", classes)
    search_archive(
        SearchParameters.model_validate({"ids": ["place-1-0"], "top": 4}),
        embedded, folder / "search", archive=archive, locations=archive.locations,
    )  # fmt: skip
    moment = pd.Timestamp("2022-01-01", tz="UTC")
    rejected = pd.DataFrame([{"location_id": "place-2", "sensor": "naip", "datetime": moment, "reason": "cloud"}])
    sets = archive.sets.assign(location_id=archive.sets["set_id"], kept=[i != 4 for i in range(len(archive.sets))])
    sets["keep_reason"] = np.where(sets["kept"], "cluster has room", "cluster is full")
    return MapInputs(
        title="A <b>small</b> chain",
        places=50,
        locations=with_grids(archive.locations),
        archive=type(archive)(archive.store, archive.images, sets, archive.locations, archive.cover),
        rejected=rejected,
        maps=[DrawnMap("segment", "Land cover", path, confidence, values=False)],
        embedding_store=embedded,
        search=folder / "search",
    )


@pytest.fixture(scope="module")
def written(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "map.html").write_text(write_map(inputs, folder / "map_files"), "utf-8")
    return folder


def told(folder):
    text = (folder / "map_files/data.js").read_text("utf-8")
    return json.loads(text.removeprefix("const MAP_DATA = ").removesuffix(";\n"))


def test_every_tile_that_the_page_is_told_of_is_there_and_no_other(written):
    data, expected = told(written), {"data.js"}
    for layer in data["images"]:
        names = [f"{layer['folder']}/{colour}/{{}}.webp" for colour in layer["colours"]]
        expected |= {name.format(key) for name in names for key in layer["tiles"].split()}
    for layer in data["results"]:
        expected |= {f"{layer['folder']}/{key}.{layer['suffix']}" for key in layer["tiles"].split()}
        if "numbers" in layer:
            expected |= {f"{layer['numbers']}/{key}.js" for key in layer["tiles"].split()}
    expected |= {place["picture"] for place in data["places"] if "picture" in place}
    root = written / "map_files"
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == expected


def test_threads_that_warp_do_not_warn_of_what_rasterio_hides(inputs, tmp_path, monkeypatch):
    warp = tiles.reproject

    def warned(*arguments, **options):  # as where another thread has ended rasterio's own hiding
        warnings.warn("Dataset has no geotransform", NotGeoreferencedWarning, stacklevel=1)
        return warp(*arguments, **options)

    monkeypatch.setattr(tiles, "reproject", warned)
    places = inputs.locations.assign(area=areas_of(inputs.locations))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(image_layers(inputs.archive, places, tmp_path))
        with pytest.raises(NotGeoreferencedWarning):
            warned(None, None)


def test_a_class_lies_where_the_map_has_it(written, inputs):
    """Colours of the finest tiles, looked up at pixel centres of the map."""
    (layer,) = (layer for layer in told(written)["results"] if layer["kind"] == "classes")
    with rasterio.open(inputs.maps[0].path) as source:
        classes = source.read(1)
    right = 0
    places = np.random.default_rng(0).integers([0, 0], classes.shape, (300, 2))
    for row, column in places:
        (x,), (y,) = transform(UTM, "EPSG:3857", [ORIGIN[0] + 10 * column + 5], [ORIGIN[1] - 10 * row - 5])
        size = 40_075_016.685578486 / 2 ** layer["finest"]
        across, down = (x + 20_037_508.342789244) / size, (20_037_508.342789244 - y) / size
        path = written / f"map_files/{layer['folder']}/{layer['finest']}/{int(across)}/{int(down)}.png"
        with Image.open(path) as tile:
            seen = tile.convert("RGBA").getpixel((int(across % 1 * TILE_PX), int(down % 1 * TILE_PX)))
        value = int(classes[row, column])
        right += seen == ((*COLOURS[value], 255) if value != 255 else (0, 0, 0, 0)) or (value == 255 and seen[3] == 0)
    assert right == 300


def test_unchanged_ground_is_not_drawn_and_legends_have_what_occurs(tmp_path):
    """Semantic change of five classes: 26 numbers, of which 17 occur, in strips of 1, 2, 3 … columns."""
    names = dict(enumerate(transition_names(["water", "forest", "field", "town", "bog"])))
    colours = dict(enumerate(transition_colors([(10 * k, 200 - 20 * k, 90) for k in range(5)])))
    there = [0, *range(2, 25)][:17]
    classes = np.repeat(np.array(there, np.uint8), range(1, 18))[None].repeat(40, axis=0)
    path, _ = write_class_map(tmp_path / "made", classes, names=names, colours=colours)
    drawn = DrawnMap("detect_transitions", "Semantic change", path, None, values=False, unchanged=0)
    (layer,) = map_layers(drawn, tmp_path)
    said = [words for _, words in layer["legend"]]
    assert said == [*(names[value] for value in there[-12:]), "unchanged: not drawn", "and 4 more, of smaller areas"]
    assert layer["names"]["0"] == "unchanged", "a click tells it all the same"
    seen, shades = 0, {colours[value] for value in there[1:]}
    for key in layer["tiles"].split():
        if key.startswith(f"{layer['finest']}/"):
            with Image.open(tmp_path / f"{layer['folder']}/{key}.png") as tile:
                pixels = np.asarray(tile.convert("RGBA")).reshape(-1, 4)
            opaque = pixels[pixels[:, 3] > 0]
            seen += len(opaque)
            assert {tuple(int(v) for v in rgb) for rgb in np.unique(opaque[:, :3], axis=0)} <= shades
    assert seen


def test_coarser_tiles_show_what_the_finer_ones_do(tmp_path):
    codes = np.full((1, 900, 1100), NOTHING, np.uint8)
    codes[0, 100:800, 200:1000] = 1
    picture = GroundPicture(lambda: codes, (900, 1100), Affine(10, 0, *ORIGIN[:1], 0, -10, ORIGIN[1]), UTM)
    found = cut_tiles(
        [picture], tmp_path, lambda bands: {"{}.png": palette_png(bands[0], {1: (9, 8, 7)})},
        gsd_m=10, codes=True, most=400,
    )  # fmt: skip
    assert found.finest > found.coarsest and len([key for key in found.tiles if key[0] == found.coarsest]) <= 4
    share = {}
    for z, x, y in found.tiles:
        with Image.open(tmp_path / f"{z}/{x}/{y}.png") as tile:
            share[z] = share.get(z, 0) + (np.asarray(tile.convert("RGBA"))[..., 3] > 0).mean() / 4**z
    np.testing.assert_allclose(list(share.values()), share[found.finest], rtol=0.02)


def test_more_tiles_than_asked_for_are_made_coarser(tmp_path):
    codes = np.ones((1, 3000, 3000), np.uint8)
    picture = GroundPicture(lambda: codes, (3000, 3000), Affine(10, 0, *ORIGIN[:1], 0, -10, ORIGIN[1]), UTM)
    found = cut_tiles([picture], tmp_path, lambda _: {}, gsd_m=10, codes=True, most=6)
    assert len([key for key in found.tiles if key[0] == found.finest]) <= 6


def test_places_near_each_other_are_one_area():
    places = pd.DataFrame({"lon": [5, 5.02, 60, 5.04], "lat": [47, 47, 10, 47], "footprint_m": 1920.0})
    assert areas_of(places).tolist() == [0, 0, 1, 0]


def test_only_so_many_places_are_shown_those_of_the_search_first(inputs, tmp_path):
    import dataclasses

    write_map(dataclasses.replace(inputs, places=3), tmp_path / "map_files")
    data = told(tmp_path)
    assert len(data["places"]) == 3 and "3 of 9 places" in data["note"]
    searched = {feature["location_id"] for feature in [*data["examples"], *data["hits"]]}
    assert {place["id"] for place in data["places"]} <= searched
    assert all(near["id"] for place in data["places"] for near in place["neighbours"])


def test_the_same_inputs_give_the_same_bytes(inputs, written, tmp_path):
    page = write_map(inputs, tmp_path / "map_files")
    assert page == (written / "map.html").read_text("utf-8")
    for path in (written / "map_files").rglob("*.*"):
        assert (tmp_path / "map_files" / path.relative_to(written / "map_files")).read_bytes() == path.read_bytes()


def test_nothing_to_show_is_a_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"the map page has nothing to show: no stage of this chain has made locations"
    ):
        write_map(MapInputs("Empty", 10), tmp_path / "map_files")
    assert not (tmp_path / "map_files").exists()


@pytest.fixture(scope="module")
def page(written):
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with browser() as tab:
        tab.size(1300, 850)
        tab.open((written / "map.html").as_uri())
        tab.wait("window.a2mae && document.querySelectorAll('.leaflet-first-pane img.leaflet-tile-loaded').length > 0")
        yield tab


def loaded(pane):
    return f"[...document.querySelectorAll('.leaflet-{pane}-pane img.leaflet-tile')].filter(e => e.naturalWidth).length"


def test_it_opens_from_a_folder_within_two_seconds_and_asks_no_network(page, written):
    assert page.run("a2mae.readyMs") < 2000
    assert page.console == []
    assert page.requests and all(url.startswith(("file://", "data:")) for url in page.requests)
    assert page.run("document.querySelector('h1').textContent") == "A <b>small</b> chain"
    assert page.run("document.getElementById('area').options.length") == 2, "one area, and everything"


def test_colours_change_and_opacity_reaches_the_tiles(page):
    assert "/true/" in page.run("document.querySelector('.leaflet-first-pane img').src")
    page.click("input[value=false]")
    page.wait("document.querySelector('.leaflet-first-pane img')?.src.includes('/false/')")
    page.run(
        "(() => { const e = document.getElementById('image-opacity'); e.value = 40;"
        " e.dispatchEvent(new Event('input')); })()"
    )
    assert page.run("document.querySelector('.leaflet-first-pane .leaflet-layer').style.opacity") == "0.4"


def test_a_result_is_switched_on_with_its_legend_and_off(page):
    assert page.run(loaded("exact")) == 0
    page.click("#layer-0")
    page.wait(loaded("exact"))
    legend = page.run("document.querySelector('#layers .legend').textContent")
    assert all(name in legend for name in NAMES.values())
    page.click("#layer-0")
    assert page.run(loaded("exact")) == 0
    page.click("#layer-0")
    page.wait(loaded("exact"))


def test_two_dates_are_compared_by_a_border_that_moves(page):
    # The map of classes lies elsewhere: back to the places by the list of areas.
    assert page.run("document.getElementById('first').options.length") == 1
    page.run("document.getElementById('area').dispatchEvent(new Event('change'))")
    page.click("#compare")
    page.wait(loaded("second"))
    assert page.run("document.getElementById('left-date').textContent") == "2022-06-01, sentinel-2-l2a"
    assert page.run("document.getElementById('right-date').textContent") == "2023-07-01, sentinel-2-l2a"
    before = page.run("document.querySelector('.leaflet-second-pane').style.clip")
    page.run("document.getElementById('swipe').focus()")
    for _ in range(5):
        page.key("ArrowRight", 39)
    after = page.run("document.querySelector('.leaflet-second-pane').style.clip")
    assert before.startswith("rect(") and after.startswith("rect(") and before != after
    page.click("#compare")
    assert page.run("document.getElementById('swipe').hidden") is True


def click_on(page, lon, lat):
    x, y = page.run(
        f"(() => {{ const m = a2mae.map; m.setView([{lat}, {lon}], 15, {{animate: false}});"
        f" const p = m.latLngToContainerPoint([{lat}, {lon}]), r = m.getContainer().getBoundingClientRect();"
        " return [p.x + r.x, p.y + r.y]; })()"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if kind != "mouseMoved" else "none",
                  clickCount=int(kind != "mouseMoved"))  # fmt: skip
    return page.wait("document.querySelector('.leaflet-popup-content')?.textContent")


def popup(page, lon, lat, word):
    click_on(page, lon, lat)
    script = f"document.querySelector('.leaflet-popup-content')?.textContent.includes({json.dumps(word)})"
    page.wait(script, 10)
    return page.run("document.querySelector('.leaflet-popup-content').textContent")


def test_a_click_tells_what_is_there_and_what_looks_like_it(page, archive):
    said = popup(page, 15 + SIDE_DEG * 2.5, 47 + SIDE_DEG / 2, "place-2")
    assert "Kept: cluster has room." in said and "Split: test." in said
    assert "sentinel-2-l2a: 2022-06-01, 2023-07-01" in said and "naip, 2022-01-01: cloud" in said
    assert "Looks most like" in said
    # Of the third cover one other place was seen.
    title = "document.querySelector('.leaflet-popup-content h3')?.textContent"
    page.click_until(".leaflet-popup-content button.go", f"{title} && {title} !== 'Place place-2'")
    assert page.run(title) == "Place place-5"
    said = popup(page, 15 + SIDE_DEG * 4.5, 47 + SIDE_DEG / 2, "place-4")
    assert "Left out by pruning: cluster is full." in said


def test_a_click_tells_the_class_and_its_probability(page, inputs):
    with rasterio.open(inputs.maps[0].path) as source:
        classes = source.read(1)
        row, column = 60, 80
        (lon,), (lat,) = transform(UTM, "EPSG:4326", *([value] for value in source.xy(row, column)))
    said = popup(page, lon, lat, "Land cover")
    assert f"{NAMES[int(classes[row, column])]}, probability 80 %" in said


def test_hits_are_listed_and_lead_to_their_ground(page, inputs):
    found = gpd.read_file(inputs.search / "hits.geojson")
    assert page.run("document.querySelectorAll('#hits li').length") == len(found)
    assert page.run("document.querySelectorAll('.rank').length") == len(found)
    page.click("#hits button")
    page.wait("document.querySelector('.leaflet-popup-content')?.textContent.includes('rank 1, score')", 10)
    assert found["location_id"][0] in page.run("document.querySelector('.leaflet-popup-content').textContent")
    page.click("#show-hits")
    assert page.run("document.querySelectorAll('.rank').length") == 0


def test_nothing_was_said_on_the_console_in_the_end(page):
    assert page.console == []
