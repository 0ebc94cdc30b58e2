"""A small, exact builder: store and tables from simulated scenes with the shifts taken from the truth.

It stands in for `coregister` and `tag` where a test must control which image is the reference and what was moved. The
real builder estimates what is known here.
"""

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from a2mae.raster.read import RasterReader
from a2mae.scenes import scenes_from_table
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.simulate.delivery.manifest import read_manifest
from a2mae.stssd.ingest.ingest import ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.store.store import ImageSetStore
from a2mae.stssd.store.writer import SensorPlan, StoreWriter
from a2mae.tasks.datasets.store_samples import Tables


def build_world(folder, out, *, sensors=("sentinel-2-l2a",), move=True, splits=("train", "test")):
    """Build from the simulation in `folder`; the first date of the first sensor is every set's reference.

    Args:
        folder: Holds the simulation's manifest.
        out: Where the store goes.
        sensors: Sensors to use.
        move: Register images onto the reference; otherwise they stay where their provider put them ("nominal").
        splits: Given to the places in turn.
    """
    manifest = read_manifest(folder)
    found = ingest(IngestParameters(), simulated_catalog=folder / manifest.catalog)
    truth = pd.read_parquet(folder / manifest.truth_scenes).set_index("scene_id")
    clouds = {scene.scene_id: folder / scene.clouds for scene in manifest.scenes}
    scenes = [s for s in scenes_from_table(found.scenes) if s.sensor in sensors and not truth.loc[s.scene_id, "refuse"]]
    scenes.sort(key=lambda scene: (sensors.index(scene.sensor), scene.datetime))
    rows, arrays = [], {sensor: [] for sensor in sensors}
    with RasterReader() as reader:
        for place in found.locations.itertuples():
            here = [scene for scene in scenes if scene.geometry.covers(place.geometry.centroid)]
            reference = here[0]
            for scene in here:
                sensor = BUILTIN_SENSORS[scene.sensor]
                side = round(place.footprint_m / sensor.gsd_m)
                affine = Affine.translation(place.x_m, place.y_m) @ Affine.scale(sensor.gsd_m, -sensor.gsd_m)
                grid = GeoBox((side, side), affine, place.crs)
                own, target = (shift(truth, s.scene_id) for s in (scene, reference))
                moved = (target[0] - own[0], target[1] - own[1]) if move else (0.0, 0.0)
                pixels = reader.read(scene.bands, grid, shift_m=moved)
                valid = np.isfinite(pixels).all(axis=0) & ~cloudy(clouds[scene.scene_id], grid)
                arrays[scene.sensor].append((stored(pixels, sensor.encoding), valid))
                registration = "reference" if scene is reference else "registered" if move else "nominal"
                rows.append(
                    {
                        "image_id": f"{place.location_id}-{scene.scene_id}",
                        "set_id": place.location_id,
                        "location_id": place.location_id,
                        "sensor": scene.sensor,
                        "row": len(arrays[scene.sensor]) - 1,
                        "datetime": scene.datetime,
                        "gsd_m": sensor.gsd_m,
                        "lon": place.lon,
                        "lat": place.lat,
                        "valid_fraction": float(valid.mean()),
                        "dark_value": 0.0,
                        "bright_value": 1.0,
                        "shift_x_m": moved[0],
                        "shift_y_m": moved[1],
                        "is_reference": scene is reference,
                        "registration": registration,
                        "scene_id": scene.scene_id,
                    }
                )
    places = list(found.locations["location_id"])
    of_places = {"set_id": places, "split": [splits[i % len(splits)] for i in range(len(places))]}
    sets = gpd.GeoDataFrame(of_places, geometry=found.locations.geometry.array, crs=found.locations.crs)
    return Tables(write_store(out, arrays), pd.DataFrame(rows), sets, found.locations), found


def shift(truth, scene_id):
    return float(truth.loc[scene_id, "true_shift_x_m"]), float(truth.loc[scene_id, "true_shift_y_m"])


def stored(pixels, encoding):
    counts = np.round((np.nan_to_num(pixels) - encoding.offset) / encoding.scale)
    return np.where(np.isfinite(pixels), np.clip(counts, 1, 65535), encoding.nodata).astype(encoding.dtype)


def cloudy(path, grid):
    with rasterio.open(path) as source:
        out = np.zeros(grid.shape, np.uint8)
        reproject(
            rasterio.band(source, 1),
            out,
            dst_transform=grid.affine,
            dst_crs=str(grid.crs),
            resampling=Resampling.nearest,
        )
    return (out > 0) & (out < 255)


def write_store(out, arrays):
    plans = []
    for sensor, images in arrays.items():
        _, height, width = images[0][0].shape
        plans.append(SensorPlan(BUILTIN_SENSORS[sensor], len(images), height, width))
    writer = StoreWriter.create(out, plans, fingerprint="test")
    for shard in writer.pending():
        images = arrays[shard.sensor][shard.start : shard.stop]
        writer.write(shard, np.stack([p for p, _ in images]), np.stack([v for _, v in images]))
    writer.finish()
    return ImageSetStore.open(out)
