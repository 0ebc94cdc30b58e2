"""Places like these: ranked as a plain sum of products ranks them, own ground left out, nothing found in silence."""

from __future__ import annotations

import dataclasses
import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import Point, box

from a2mae.explore.parameters import SearchParameters
from a2mae.explore.query import rows_of_query
from a2mae.explore.results import search_archive
from a2mae.explore.search import Searcher

from .conftest import SIDE_DEG, embed


def asked(**options):
    return SearchParameters.model_validate(options)


def place(number):
    """Middle of a place."""
    return (15 + SIDE_DEG * (number + 0.5), 47 + SIDE_DEG / 2)


def all_rows(store, level="image"):
    table = store.table(level, ["id", "location_id", "lon", "lat"]).to_pandas()
    return table, np.concatenate([block.vectors for block in store.blocks(level)])


def ids_of(store, numbers, level="image"):
    ids = store.table(level, ["id"])["id"].to_pylist()
    return [ids[number] for number in numbers]


def test_the_ranking_is_that_of_a_plain_sum_of_products(embedded):
    rows, vectors = all_rows(embedded)
    standard = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-6)
    unit = standard / np.linalg.norm(standard, axis=1, keepdims=True)
    positive, negative = [0, 4], [7]

    def direction(numbers):
        mean = unit[numbers].mean(axis=0)
        return mean / np.linalg.norm(mean)

    score = unit @ (direction(positive) - direction(negative))
    own = set(rows["location_id"][positive])
    expected = [number for number in np.argsort(-score, kind="stable") if rows["location_id"][number] not in own]
    found = Searcher(embedded, "image").similar(
        embedded.take("image", positive), embedded.take("image", negative), top=100, once_per_location=False
    )
    np.testing.assert_allclose(found.score, score[expected], atol=1e-4)
    assert sorted(found.number.tolist()) == sorted(expected)


def test_the_best_hits_are_of_the_same_cover(archive, embedded):
    for number, others in ((0, 2), (1, 2), (2, 1)):  # of the third cover one place was never seen
        wanted, _ = rows_of_query(asked(point=place(number)), embedded, archive.locations)
        found = Searcher(embedded, "image").similar(embedded.take("image", wanted), top=others)
        covers = [archive.cover[name.rsplit("-", 1)[0]] for name in ids_of(embedded, found.number)]
        assert covers == [number] * others


def test_a_location_is_named_once_and_its_own_ground_never(archive, embedded):
    wanted, _ = rows_of_query(asked(point=place(3)), embedded, archive.locations)
    assert sorted(ids_of(embedded, wanted)) == ["place-3-0", "place-3-1"]
    examples, searcher = embedded.take("image", wanted), Searcher(embedded, "image")
    found = ids_of(embedded, searcher.similar(examples, top=50).number)
    places = [name.rsplit("-", 1)[0] for name in found]
    assert len(places) == len(set(places)) == 7 and "place-3" not in places
    # Places are 758 m apart here.
    near = ids_of(embedded, searcher.similar(examples, top=50, exclude_m=800).number)
    assert {name.rsplit("-", 1)[0] for name in near} == set(places) - {"place-2", "place-4"}


def test_blocks_do_not_change_what_is_found(archive, pretrained, embedded, tmp_path, monkeypatch):
    from a2mae.explore import archive as embedding

    monkeypatch.setattr(embedding, "_PART_ROWS", 3)
    many = embed(archive, pretrained, tmp_path / "store")
    assert len(many.parts()) > len(embedded.parts())
    results = []
    for store in (embedded, many):
        wanted, unwanted = rows_of_query(asked(ids=["place-0-0"], not_ids=["place-1-1"]), store, None)
        found = Searcher(store, "image").similar(store.take("image", wanted), store.take("image", unwanted), top=5)
        results.append((ids_of(store, found.number), found.score.round(3).tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3857"])
def test_examples_come_from_a_file_in_any_crs(archive, embedded, tmp_path, crs):
    geometry = [Point(place(0)), box(*(np.array(place(1)) - 0.001), *(np.array(place(1)) + 0.001)), Point(place(2))]
    frame = gpd.GeoDataFrame({"wanted": [1, 1, 0]}, geometry=geometry, crs="EPSG:4326").to_crs(crs)
    frame.to_file(tmp_path / "examples.gpkg")
    wanted, unwanted = rows_of_query(asked(examples=str(tmp_path / "examples.gpkg")), embedded, archive.locations)
    assert sorted(ids_of(embedded, wanted)) == ["place-0-0", "place-0-1", "place-1-0", "place-1-1"]
    assert sorted(ids_of(embedded, unwanted)) == ["place-2-0", "place-2-1"]


def test_nothing_named_is_an_example_of_the_test_split(embedded):
    wanted, unwanted = rows_of_query(asked(), embedded, None)
    assert ids_of(embedded, wanted) == ["place-2-0"] and not unwanted.size


def test_results_are_files_that_people_open(archive, embedded, tmp_path):
    hits = search_archive(
        asked(point=place(0), top=4, shown=3), embedded, tmp_path / "found",
        archive=archive, locations=archive.locations,
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "contact_sheet.png", "examples.geojson", "hits.geojson", "hits.parquet", "search.json",
    ]  # fmt: skip
    parquet, geojson = (
        gpd.read_parquet(tmp_path / "found/hits.parquet"),
        gpd.read_file(tmp_path / "found/hits.geojson"),
    )
    assert parquet["id"].tolist() == geojson["id"].tolist() == hits["id"].tolist() and len(hits) == 4
    assert parquet["rank"].tolist() == [1, 2, 3, 4] and parquet["score"].is_monotonic_decreasing
    assert parquet.crs == geojson.crs == "EPSG:4326"
    with Image.open(tmp_path / "found/contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (626, 1290, 3)
    framed = (pixels == (214, 39, 112)).all(axis=2)
    for top in (38, 332):
        assert framed[top, 10:250].all() and not framed[top, 260:].any(), "both examples on the left, no hit"


def test_sets_are_searched_as_images_are(archive, embedded, tmp_path):
    hits = search_archive(asked(level="set", ids=["place-0"]), embedded, tmp_path / "found", archive=archive)
    assert hits["id"].head(2).tolist() in (["place-3", "place-6"], ["place-6", "place-3"])
    assert (tmp_path / "found/contact_sheet.png").is_file()
    told = json.loads((tmp_path / "found/search.json").read_text())
    assert told["options"]["ids"] == ["place-0"] and told["model"] == embedded.about.model


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"point": (3.0, 47.0)},
            r"search.point 3, 47 lies outside the archive; the nearest place is at 15.0050, 47.0050",
        ),
        ({"point": place(8)}, r"lies in the archive, but no image of it was embedded: nothing was seen there"),
        (
            {"point": (500_000.0, 5_200_000.0)},
            r"degrees, found 500000, 5.2e\+06: for another CRS name a file in search.ex",
        ),
        ({"ids": ["place-0-9"]}, r"search.ids: the store has no image 'place-0-9'; did you mean 'place-0-\d'\?"),
        ({"not_ids": ["place-0-0"]}, r"examples of what is not wanted alone: name one that is wanted, too"),
        ({"sensors": ["naip"]}, r"search.sensors: the store has no vector of naip; it has sentinel-2-l2a"),
    ],
)
def test_what_cannot_be_found_is_told(archive, embedded, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        rows_of_query(asked(**options), embedded, archive.locations)


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        ((shapely.Polygon(), {}), r"feature 0 of .*examples.gpkg has no geometry; Point or MultiPoint or Polygon"),
        ((Point(3, 47), {}), r"feature 0 of .*examples.gpkg lies outside the archive"),
        ((Point(place(0)), {"wanted": ["maybe"]}), r"feature 0 of .* says 'maybe'; 1 \(wanted\) or 0 \(not wanted\)"),
    ],
)
def test_examples_that_are_none_are_refused(archive, embedded, tmp_path, example, sentence):
    geometry, columns = example
    frame = gpd.GeoDataFrame(columns, geometry=[geometry], crs="EPSG:4326")
    frame.to_file(tmp_path / "examples.gpkg")
    with pytest.raises(ValueError, match=sentence):
        rows_of_query(asked(examples=str(tmp_path / "examples.gpkg")), embedded, archive.locations)


def test_a_vector_of_zeros_is_refused(embedded):
    example = embedded.take("image", [0])
    zeros = dataclasses.replace(example, vectors=np.zeros_like(example.vectors))
    with pytest.raises(ValueError, match=r"has a vector of zeros, which is like nothing: remove the folder and embed"):
        Searcher(embedded, "image").similar(zeros, top=3)


@pytest.mark.parametrize("metres", [2.1e7, 3e7, 4.5e7, 1e308])
def test_what_lies_farther_than_the_earth_is_round_leaves_out_all(archive, embedded, metres):
    assert embedded.count("image")
    found = Searcher(embedded, "image").similar(embedded.take("image", [0]), top=9, exclude_m=metres)
    assert not len(found.number)
