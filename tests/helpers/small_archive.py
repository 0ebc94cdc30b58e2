"""A small archive made by hand: a few places with Sentinel-2, Landsat and Sentinel-1, and labels on them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.store_samples import Tables
from helpers.built_world import stored, write_store

SIDE_M = 480
UTM = "EPSG:32632"
S2, L8, S1 = "sentinel-2-l2a", "landsat-oli-c2-l2", "sentinel-1-rtc"
DATES = {
    S2: ("2022-07-01", "2023-01-10", "2023-07-01"),
    L8: ("2023-07-05",),
    S1: ("2023-07-03",),
}
"""Images of every place, but that the first place has no radar and the last no Landsat."""
FIELD, WOOD = 0.30, 0.05
"""Near infrared of the western and of the eastern half of every place; other bands are a third of it."""


def small_archive(out, *, sensors=(S2, L8, S1), places=6, clouded=(), grown=None):
    """Write a store with its tables.

    Args:
        out: Where the store goes.
        sensors: Whose images there are.
        places: How many locations, every third one of the test split.
        clouded: `(place, date)` of Sentinel-2 images whose northern half was not seen.
        grown: Date from which the field is a wood, too (as `land_use` says); None: never.
    """
    rows, arrays = [], {sensor: [] for sensor in sensors}
    for place in range(places):
        for name in sensors:
            if (name == S1 and place == 0) or (name == L8 and place == places - 1):
                continue
            for date in DATES[name]:
                sensor = BUILTIN_SENSORS[name]
                side = round(SIDE_M / sensor.gsd_m)
                cover = (np.arange(side) < side // 2) & (grown is None or date < grown)
                rng = np.random.default_rng(len(rows))
                if name == S1:
                    level = np.where(cover, -14.0, -8.0)
                    bands = [level, level - 6]
                else:
                    nir = np.where(cover, FIELD, WOOD)
                    bands = [nir if "nir" in band.common_name else nir / 3 for band in sensor.bands]
                noise = 0.5 if name == S1 else 0.002
                pixels = np.stack([np.broadcast_to(band, (side, side)) for band in bands])
                pixels = pixels + rng.normal(0, noise, pixels.shape)
                valid = np.ones((side, side), bool)
                if name == S2 and (place, date) in clouded:
                    valid[: side // 2] = False
                counts = stored_db(pixels) if name == S1 else stored(pixels, sensor.encoding)
                arrays[name].append((counts, valid))
                rows.append(
                    {
                        "image_id": f"p{place}-{name}-{date}",
                        "set_id": f"p{place}",
                        "location_id": f"p{place}",
                        "sensor": name,
                        "row": len(arrays[name]) - 1,
                        "datetime": pd.Timestamp(date, tz="UTC") + pd.Timedelta(hours=10),
                        "gsd_m": float(sensor.gsd_m),
                        "lon": 9.0 + place * 0.1,
                        "lat": 47.0,
                        "valid_fraction": float(valid.mean()),
                        "is_reference": name == S2 and date == DATES[S2][0],
                        "registration": "registered",
                        "scene_id": f"{name}-{date}",
                        **{"dark_value": 0.0, "bright_value": 1.0, "shift_x_m": 0.0, "shift_y_m": 0.0},
                    }
                )
    ids = [f"p{place}" for place in range(places)]
    corners = [(500_000.0 + 10_000 * place, 5_200_000.0) for place in range(places)]
    boxes = gpd.GeoSeries([shapely.box(x, y - SIDE_M, x + SIDE_M, y) for x, y in corners], crs=UTM)
    sets = gpd.GeoDataFrame(
        {"set_id": ids, "split": ["test" if place % 3 == 2 else "train" for place in range(places)]},
        geometry=boxes.to_crs(4326),
    )
    centres = boxes.centroid.to_crs(4326)
    locations = pd.DataFrame(
        {
            "location_id": ids,
            "crs": UTM,
            "x_m": [x for x, _ in corners],
            "y_m": [y for _, y in corners],
            "lon": centres.x.to_numpy(),
            "lat": centres.y.to_numpy(),
            "footprint_m": SIDE_M,
        }
    )
    return Tables(write_store(out, arrays), pd.DataFrame(rows), sets, locations)


def stored_db(pixels):
    return np.round(pixels / 0.01).astype(np.int16)


def land_cover(folder, tables):
    """Write polygons of field (west) and wood (east) over every place."""
    rows = []
    for place in tables.locations.itertuples():
        half = SIDE_M / 2
        for number, name in enumerate(("field", "wood")):
            west = place.x_m + number * half
            rows.append(
                {
                    "class": name,
                    "height": 20.0 * number,
                    "geometry": shapely.box(west, place.y_m - SIDE_M, west + half, place.y_m),
                }
            )
    path = folder / "cover.gpkg"
    gpd.GeoDataFrame(rows, crs=UTM).to_file(path)
    return path


def land_use(folder, tables, grown="2023-01-01"):
    """Write the polygons of `land_cover` with days: the western field is one until it has grown to a wood."""
    cover = gpd.read_file(land_cover(folder, tables))
    west = cover[cover["class"] == "field"]
    last = str((pd.Timestamp(grown) - pd.Timedelta(days=1)).date())
    became = west.assign(**{"class": "wood", "start": grown, "end": None})
    was = cover.assign(start=None, end=[last if name == "field" else None for name in cover["class"]])
    path = folder / "use.gpkg"
    gpd.GeoDataFrame(pd.concat([was, became], ignore_index=True), crs=UTM).to_file(path)
    return path
