"""The map page: what the stages made, on the ground, in any browser, from a folder and without a network.

`map.html` stands beside the folder `map_files`. A page that was opened from a folder may load pictures and scripts from
beside it and nothing else: so tiles are pictures, and all numbers are scripts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from a2mae.errors import InputError, plural
from a2mae.explore.archive import Archive
from a2mae.explore.map_layers import (
    DrawnMap,
    Told,
    areas_of,
    component_layer,
    image_layers,
    map_layers,
    read_features,
    value_layer,
)
from a2mae.explore.search import Searcher
from a2mae.explore.store import EmbeddingStore
from a2mae.files import whole_folder
from a2mae.report.inputs import records
from a2mae.report.pictures import display_bands, stretch

logger = logging.getLogger(__name__)

FILES = "map_files"
"""The folder beside the page."""
_NEIGHBOURS = 5
_THUMBNAIL_PX = 112
_ASSETS = ("leaflet.js", "map.js", "leaflet.css", "map.css")


@dataclass(frozen=True)
class MapInputs:
    """What the page shows; absent is what no stage of the chain has made.

    Attributes:
        title: Heading.
        places: Locations whose images are shown, at most.
        locations: Location table.
        archive: Images and sets, after pruning where the chain prunes.
        rejected: Rejected images.
        maps: Of tasks.
        embeddings: Folder of the embedded raster.
        embedding_store: Vectors of the archive.
        search: Folder of what was searched for.
    """

    title: str
    places: int
    locations: gpd.GeoDataFrame | None = None
    archive: Archive | None = None
    rejected: pd.DataFrame | None = None
    maps: Sequence[DrawnMap] = ()
    embeddings: Path | None = None
    embedding_store: EmbeddingStore | None = None
    search: Path | None = None


def write_map(inputs: MapInputs, folder: Path) -> str:
    """Write the tiles and numbers of the page.

    Args:
        inputs: What is shown.
        folder: `map_files`, beside the page; replaced when all of it is whole.

    Returns:
        The page as HTML.

    Raises:
        InputError: If there is nothing that lies on a map.
    """
    hits, examples = (
        [] if inputs.search is None else read_features(inputs.search / f"{name}.geojson")
        for name in ("hits", "examples")
    )
    places = None if inputs.locations is None else _chosen(inputs, [*examples, *hits])
    with whole_folder(folder) as partial:
        partial.mkdir(parents=True)
        images: list[Told] = []
        about: list[Told] = []
        if places is not None:
            if inputs.archive is not None:
                shown = places[places["shown"]]
                images = list(image_layers(inputs.archive, shown, partial))
            about = _places(inputs, places, partial)
        results = [told for drawn in inputs.maps for told in map_layers(drawn, partial)]
        if inputs.search is not None and (inputs.search / "similarity.tif").is_file():
            path = inputs.search / "similarity.tif"
            results.append(value_layer("similarity", "Similarity to the examples", path, partial, ramp="magma"))
        if inputs.embeddings is not None and (inputs.embeddings / "embeddings.tif").is_file():
            told = component_layer(inputs.embeddings / "embeddings.tif", partial)
            results += [] if told is None else [told]
        if not images and not results and not about:
            raise InputError(
                "the map page has nothing to show: no stage of this chain has made locations, images, maps or"
                " embeddings; put ingest or a task that draws maps into 'chain' in conf/<env>/parameters_chain.yml"
            )
        content = {
            "title": inputs.title,
            "note": "" if places is None else _note(places),
            "images": images,
            "results": results,
            "places": about,
            "hits": [_feature(hit) for hit in hits],
            "examples": [_feature(example) for example in examples],
        }
        text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)
        (partial / "data.js").write_text(f"const MAP_DATA = {text};\n", "utf-8")
        written = [path for path in partial.rglob("*") if path.is_file()]
        logger.info(
            "map: %s, %s of results, %s, %.1f MB",
            plural(len(images), "image layer"), plural(len(results), "layer"), plural(len(written), "file"),
            sum(path.stat().st_size for path in written) / 1e6,
        )  # fmt: skip
    return _page(inputs.title)


def _page(title: str) -> str:
    folder = resources.files("a2mae.explore") / "map_assets"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Our own files and the vendored library: the only text that reaches the page unescaped.
    texts = {name.replace(".", "_"): Markup((folder / name).read_text("utf-8")) for name in _ASSETS}  # noqa: S704
    template = environment.from_string((folder / "map.html.j2").read_text("utf-8"))
    return template.render(
        title=title, files=FILES, licence=(folder / "leaflet-LICENSE.txt").read_text("utf-8"), **texts
    )


def _chosen(inputs: MapInputs, features: Sequence[Told]) -> gpd.GeoDataFrame:
    """Choose the places whose images are shown: all, or those of examples and hits, then evenly over the table."""
    assert inputs.locations is not None
    places = inputs.locations.reset_index(drop=True)
    places = places.assign(area=areas_of(places))
    named = {str(_feature(feature)["location_id"]) for feature in features}
    first = np.flatnonzero(places["location_id"].isin(named))[: inputs.places]
    others = np.setdiff1d(np.arange(len(places)), first)
    left = inputs.places - len(first)
    if len(others) > left:
        others = others[np.linspace(0, len(others) - 1, max(left, 0)).astype(int)]
    return places.assign(shown=np.isin(np.arange(len(places)), np.concatenate([first, others])))


def _note(places: gpd.GeoDataFrame) -> str:
    shown = int(places["shown"].sum())
    if shown == len(places):
        return ""
    return f"Images of {shown:,} of {len(places):,} places are shown; set report.map_places for more."


def _places(inputs: MapInputs, places: gpd.GeoDataFrame, folder: Path) -> list[Told]:
    """Describe the places that are shown, with a small picture and their nearest neighbours."""
    places = places[places["shown"]].reset_index(drop=True)
    number = {str(name): index for index, name in enumerate(places["location_id"])}
    about: list[Told] = [
        {
            "id": str(row.location_id),
            "area": int(row.area),
            "lon": round(float(row.lon), 6),
            "lat": round(float(row.lat), 6),
            "rings": _rings(row.geometry),
            "state": "none",
            "sets": [],
            "rejected": [],
            "neighbours": [],
        }
        for row in places.itertuples()
    ]
    if inputs.archive is not None:
        _add_sets(about, number, inputs.archive)
        _add_thumbnails(about, number, inputs.archive, folder)
    if inputs.rejected is not None:
        for row in records(inputs.rejected):
            if row["location_id"] in number:
                when = f"{row['datetime']:%Y-%m-%d}" if pd.notna(row["datetime"]) else ""
                about[number[row["location_id"]]]["rejected"].append(  # type: ignore[attr-defined]
                    [str(row["sensor"]), when, str(row["reason"])]
                )
    if inputs.embedding_store is not None and inputs.embedding_store.count("set"):
        _add_neighbours(about, number, inputs.embedding_store)
    return about


def _add_sets(about: list[Told], number: dict[str, int], archive: Archive) -> None:
    sets = archive.sets[archive.sets["location_id"].isin(number)]
    for row in sets.sort_values("set_id").itertuples():
        place = about[number[row.location_id]]
        kept = bool(getattr(row, "kept", True))
        place["state"] = "kept" if kept or place["state"] == "kept" else "left out"
        place["sets"].append(  # type: ignore[attr-defined]
            {
                "id": str(row.set_id),
                "kept": kept,
                "why": str(getattr(row, "keep_reason", "") or ""),
                "split": str(getattr(row, "split", "")),
            }
        )


def _add_thumbnails(about: list[Told], number: dict[str, int], archive: Archive, folder: Path) -> None:
    """Draw a small picture of each place: of the clearest image that is the finest."""
    images = archive.images[archive.images["location_id"].isin(number)]
    images = images.sort_values(["gsd_m", "valid_fraction", "image_id"], ascending=[False, False, True])
    (folder / "places").mkdir()
    for row in records(images.drop_duplicates("location_id")):
        bands = list(display_bands(archive.store.sensor(row["sensor"])))
        pixels, valid = archive.store.read_physical(row["sensor"], [row["row"]], bands)
        picture = Image.fromarray(stretch(pixels[0], valid[0]))
        place = about[number[row["location_id"]]]
        place["picture"] = f"places/{number[row['location_id']]}.webp"
        side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
        picture.resize(side, Image.Resampling.BICUBIC).save(folder / str(place["picture"]), "WEBP", quality=80)


def _add_neighbours(about: list[Told], number: dict[str, int], store: EmbeddingStore) -> None:
    """Name the places whose sets have the nearest vectors, whether they are shown or not."""
    first: dict[str, int] = {}
    for row, name in enumerate(store.table("set", ["location_id"])["location_id"].to_pylist()):
        if name in number:
            first.setdefault(name, row)
    found = Searcher(store, "set").neighbours(store.take("set", list(first.values())), _NEIGHBOURS)
    for name, hits in zip(first, found, strict=True):
        rows = store.take("set", hits.number).rows
        about[number[name]]["neighbours"] = [
            {"id": other, "place": number.get(other, -1), "score": round(score, 3), "lon": lon, "lat": lat}
            for other, score, lon, lat in zip(
                rows["location_id"].to_pylist(),
                hits.score.tolist(),
                rows["lon"].to_pylist(),
                rows["lat"].to_pylist(),
                strict=True,
            )
        ]


def _rings(geometry: shapely.Geometry) -> list[list[list[float]]]:
    """Give the outlines of a footprint as latitude and longitude."""
    return [
        [[round(lat, 6), round(lon, 6)] for lon, lat in part.exterior.coords[:-1]]
        for part in shapely.get_parts(geometry)
        if isinstance(part, shapely.Polygon)
    ]


def _feature(feature: Told) -> Told:
    """Give what the page shows of a hit or an example."""
    properties, geometry = feature["properties"], feature["geometry"]
    assert isinstance(properties, dict)
    kept = ("rank", "score", "id", "location_id", "sensor", "datetime", "lon", "lat")
    told: Told = {key: properties[key] for key in kept if key in properties}
    return told | {"rings": _rings(shapely.from_geojson(json.dumps(geometry)))}
