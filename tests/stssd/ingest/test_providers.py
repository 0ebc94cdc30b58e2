"""The environments of public providers, as configured, against a server on loopback with items shaped like theirs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml

from a2mae.errors import InputError
from a2mae.remote.policy import RemoteAccess
from a2mae.scenes import scenes_from_table, sensors_from_json
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate
from a2mae.stssd.coregister.build import build
from a2mae.stssd.ingest.ingest import Ingested, ingest
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from helpers.http_server import serve_files
from helpers.stac_api import Api, serve_api

CONF = Path(__file__).parents[3] / "conf"
AREA = [12.2, 51.8, 12.4, 52.0]
EARTH_SEARCH_KEYS = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
}  # fmt: skip
HOOK = '''
"""Planetary Computer's signer, with its endpoint on loopback."""
from a2mae.remote.fetch import SasSigner

sign = SasSigner("{endpoint}", host="127.0.0.1")
'''


def configured(env: str, group: str) -> dict:
    """A group's parameters in an environment, merged as Kedro does."""

    def merge(base: dict, over: dict) -> dict:
        return base | {
            k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
            for k, v in over.items()
        }

    base = yaml.safe_load((CONF / "base" / f"parameters_{group}.yml").read_text())[group]
    path = CONF / env / f"parameters_{group}.yml"
    return merge(base, yaml.safe_load(path.read_text())[group]) if path.is_file() else base


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """One place: three dates of Sentinel-2, two of Landsat; items with hrefs below the folder."""
    folder = tmp_path_factory.mktemp("world")
    dates = [
        AcquisitionParameters(period=period, season=season)
        for period, season in (("before", "growing"), ("after", "growing"), ("after", "dormant"))
    ]
    region = RegionParameters(name="one", lon=12.3, lat=51.9, biome="temperate_plain", footprints=1)
    acquisitions = {"sentinel-2-l2a": tuple(dates), "landsat-oli-c2-l2": tuple(dates[:2])}
    manifest = simulate(SimulateParameters(workers=1, regions=(region,), acquisitions=acquisitions), folder)
    items = []
    for entry in manifest.scenes:
        item = json.loads((folder / entry.item).read_text())
        for asset in item["assets"].values():
            asset["href"] = f"{Path(entry.item).parent.as_posix()}/{asset['href']}"
        items.append({**item, "links": []})
    return folder, items


def with_root(items: list[dict], root: str) -> list[dict]:
    found = copy.deepcopy(items)
    for item in found:
        for asset in item["assets"].values():
            asset["href"] = f"{root}/{asset['href']}"
    return found


def like_planetary_computer(items: list[dict]) -> list[dict]:
    for item in items:
        properties = item["properties"]
        properties["proj:epsg"] = int(properties.pop("proj:code").removeprefix("EPSG:"))
        if item["collection"].startswith("landsat"):
            item["collection"] = "landsat-c2-l2"
            properties |= {"landsat:collection_number": "02", "landsat:correction": "L2SP", "instruments": ["oli"]}
        else:
            properties |= {"platform": "Sentinel-2A", "s2:product_type": "S2MSI2A", "constellation": "Sentinel 2"}
            for asset in item["assets"].values():
                del asset["raster:bands"]
    return items


def like_earth_search(items: list[dict]) -> list[dict]:
    found = [item for item in items if item["collection"] == "sentinel-2-l2a"]
    for item in found:
        item["collection"] = "sentinel-2-c1-l2a"
        item["properties"] |= {"s2:product_type": "S2MSI2A", "earthsearch:boa_offset_applied": True}
        item["assets"] = {EARTH_SEARCH_KEYS[key]: asset for key, asset in item["assets"].items()}
    return found


def provided(env: str, api: Api, **changes: object) -> IngestParameters:
    """The environment's parameters with nothing changed but the area, the dates and where the servers are."""
    parameters = configured(env, "ingest")
    parameters["source"]["api"] |= {"url": api.url, "bbox": AREA, "datetime": "2019-01-01/2024-12-31", "retries": 1}
    parameters["hrefs"] |= {"schemes": ["http"], "hosts": ["127.0.0.1"], "allow_private": True}
    parameters["source"] |= changes
    return IngestParameters(**parameters)


def built(env: str, done: Ingested, url: Path, signing: str):
    parameters = CoregisterParameters(**{**configured(env, "coregister"), "workers": 1})
    return build(
        done.scenes, done.locations, sensors_from_json(done.sensors), parameters, str(url), access=RemoteAccess(signing)
    )


def signed(path: str) -> tuple[int, dict[str, str]] | None:
    return None if not path.partition("?")[0].endswith(".tif") or "sig=" in path else (403, {})


def test_planetary_computer(world: tuple[Path, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, items = world
    (folder / "sas" / "127.0.0.1").mkdir(parents=True)
    token = json.dumps({"token": "sig=secret", "msft:expiry": "2999-01-01T00:00:00Z"})
    for container in ("sentinel-2-l2a", "landsat-oli-c2-l2"):
        (folder / "sas" / "127.0.0.1" / container).write_text(token)
    with serve_files(folder) as files, serve_api(like_planetary_computer(with_root(items, files.url))) as api:
        files.fail = signed
        (tmp_path / "loopback_signer.py").write_text(HOOK.format(endpoint=f"{files.url}/sas"))
        monkeypatch.syspath_prepend(tmp_path)
        done = ingest(provided("planetary_computer", api, signing="loopback_signer:sign"))
        assert set(done.scenes.loc[done.scenes["status"] == "accepted", "sensor"]) == set(done.sensors)
        assert len(scenes_from_table(done.scenes)) == 5 and len(done.locations) == 1
        assert api.searches[0]["query"] == {"eo:cloud_cover": {"lt": 30}}
        tables = built("planetary_computer", done, tmp_path / "stssd.zarr", "loopback_signer:sign")
        assert set(tables.images["sensor"]) == {"sentinel-2-l2a", "landsat-oli-c2-l2"} and len(tables.images) == 5
        assert sum("/sas/" in path for path in files.requests) == 2  # a token per container, kept
        assert files.ranges
        replayed_from_the_record(done, tables.manifest_hash, tmp_path)


def replayed_from_the_record(done: Ingested, manifest_hash: str, tmp_path: Path) -> None:
    """Neither the API nor the search is needed again: the recorded items alone make the same tables and store."""
    path = tmp_path / "stac_items.json"
    path.write_text(json.dumps(done.stac_items))
    gone = Api("http://127.0.0.1:9")
    parameters = provided("planetary_computer", gone, signing="loopback_signer:sign")
    api = parameters.source.api.model_copy(update={"replay": str(path)})
    again = ingest(parameters.model_copy(update={"source": parameters.source.model_copy(update={"api": api})}))
    assert again.scenes.equals(done.scenes) and again.locations.equals(done.locations)
    tables = built("planetary_computer", again, tmp_path / "again.zarr", "loopback_signer:sign")
    assert tables.manifest_hash == manifest_hash


def test_earth_search(world: tuple[Path, list[dict]], tmp_path: Path) -> None:
    folder, items = world
    with serve_files(folder) as files, serve_api(like_earth_search(with_root(items, files.url))) as api:
        done = ingest(provided("earth_search", api))
        scenes = scenes_from_table(done.scenes)
        # The offset follows the baseline; the flag, which is wrong here, is not believed.
        assert {s.assets[0].offset for s in scenes if s.processing_baseline >= "04.00"} == {-0.1}
        tables = built("earth_search", done, tmp_path / "stssd.zarr", "none")
        assert len(tables.images) == 3 and tables.images["set_id"].nunique() == 1
        assert tables.images["registration"].isin(["reference", "registered"]).all()


def test_filters_reach_the_api_in_both_forms(world: tuple[Path, list[dict]]) -> None:
    items = with_root(world[1], "http://127.0.0.1:9")
    for cover, item in zip((1.0, 12.0, 25.0, 28.0, 60.0), items, strict=True):
        item["properties"]["eo:cloud_cover"] = cover
    both = {"op": "and", "args": [
        {"op": "<", "args": [{"property": "eo:cloud_cover"}, 27]}, {"op": "=", "args": [{"property": "gsd"}, 10]},
    ]}  # fmt: skip
    few = {item["id"] for item in items if item["properties"]["eo:cloud_cover"] < 27}
    ten_metres = {item["id"] for item in items if item["properties"]["gsd"] == 10} & few
    with serve_api(items) as api:
        for changes, expected in (
            ({"query": {"eo:cloud_cover": {"lt": 27}}}, few),
            ({"filter": "eo:cloud_cover < 27"}, few),
            ({"filter": "eo:cloud_cover < 27 AND gsd = 10", "page_size": 1}, ten_metres),
            ({"filter": both}, ten_metres),
            ({"query": {"eo:cloud_cover": {"gte": 1, "lte": 25}}, "filter": both}, ten_metres),
        ):
            settings = {"url": api.url, "bbox": AREA, "retries": 0, **changes}
            done = ingest(
                IngestParameters(
                    source={"kind": "stac_api", "api": settings}, locations={"min_scenes": 1},
                    hrefs={"schemes": ["http"], "allow_private": True},
                )
            )  # fmt: skip
            assert {item["id"] for item in done.stac_items["features"]} == expected, changes
        assert len(api.searches) >= 5 + len(ten_metres) - 1  # the pages of one were asked for
        with pytest.raises(ValueError, match="does not answer the search"):
            ingest(IngestParameters(source={"kind": "stac_api", "api": {**settings, "query": {"gsd": {"like": "1"}}}}))


def test_a_search_that_breaks_off_says_how_far_it_came_and_the_next_run_has_all(world, caplog) -> None:
    items = with_root(world[1], "http://127.0.0.1:9")
    settings = {"bbox": AREA, "retries": 0, "page_size": 2}
    with serve_api(items) as api:

        def run() -> list[str]:
            source = {"kind": "stac_api", "api": {"url": api.url, **settings}}
            hrefs = {"schemes": ["http"], "allow_private": True}
            done = ingest(IngestParameters(source=source, locations={"min_scenes": 1}, hrefs=hrefs))
            return [item["id"] for item in done.stac_items["features"]]

        api.broken = (2,)
        with pytest.raises(InputError, match=r"gave 4 items and then no further page: .*502.* Run again: .* page_size"):
            run()
        api.broken, api.matched = (), len(items)
        assert sorted(run()) == sorted(item["id"] for item in items)
        assert "items match" not in caplog.text
        api.last = 0  # a server that forgets the link to its second page
        assert len(run()) == 2
        assert f"says that {len(items)} items match, but its pages gave 2" in caplog.text
