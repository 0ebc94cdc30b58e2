"""What a catalog may make us open, and what it may not."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from a2mae.errors import InputError, RejectedError
from a2mae.remote.policy import HrefPolicy, check_vector, load_signer, local_href, redact
from a2mae.tasks.datasets.vector_files import read_features

ALL = frozenset({"file", "https", "http", "s3"})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.tif").touch()
    (tmp_path / "secret.tif").touch()
    return tmp_path / "cat"


def policy(root, **changes):
    return HrefPolicy(**{"schemes": ALL, "roots": (root,), **changes})


@pytest.mark.parametrize(
    "href",
    [
        "../secret.tif", "/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "file://host/share/a.tif",
        "/vsizip/a.zip/a.tif", "/vsicurl/http://10.0.0.1/a.tif", "vsistdin/x", "//vsimem/a", "VSIZIP/a.zip",
        "sub/vsizip/../../a", "NETCDF:a.nc", "GTIFF_DIR:1:/etc/passwd", "WMS:http://x", "zip://a.zip!b.tif", "gs://b/a.tif",
        "ftp://host/a.tif", "data:text/plain,x", "javascript:x", "a\x00.tif", "a\n.tif", "", "x" * 5000,
        "http://127.0.0.1/a.tif", "http://localhost:80/a.tif", "http://[::1]/a.tif", "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/", "http://192.168.0.1/", "http://172.16.5.5/", "http://2130706433/", "http://0x7f000001/",
        "http://127.1/", "http://0/", "http://[::ffff:10.0.0.1]/", "http://fileserver.local/", "http://metadata.internal/",
        "https://user:pass@example.com/a.tif", "https:///a.tif", "https://exa mple.com/a", "https://example.com:port/a",
        "https://example.com/%2Fvsizip/a.tif", "https://[abc/a.tif", "https://user:pass@[abc/a.tif",
    ],
)  # fmt: skip
def test_rejected(root, href):
    with pytest.raises(RejectedError) as caught:
        policy(root).check(href, base=str(root / "item.json"))
    assert caught.value.reason == "bad_href"
    assert "pass" not in caught.value.detail.partition("rejected:")[0].replace("passwd", "")


def test_allowed(root):
    base = str(root / "sub" / "item.json")
    check = policy(root).check
    expected = local_href(root / "a.tif")
    assert check("../a.tif", base=base) == local_href(root / "sub" / ".." / "a.tif") == expected
    assert check(f"file://{root}/a.tif") == expected
    assert check(str(root / "a.tif")) == expected
    assert check("HTTPS://Example.com/x.tif?sig=1") == "https://Example.com/x.tif?sig=1"
    assert check("b.tif", base="https://example.com/x/item.json") == "https://example.com/x/b.tif"
    assert check("s3://bucket/key.tif") == "s3://bucket/key.tif"


def test_settings_narrow_and_widen(root):
    assert policy(root, allow_private=True).check("http://127.0.0.1:8/a.tif") == "http://127.0.0.1:8/a.tif"
    hosts = policy(root, hosts=("example.com",))
    assert hosts.check("https://eu.example.com/a")
    for href in ("https://example.com.evil.org/a", "https://notexample.com/a"):
        with pytest.raises(RejectedError, match=r"ingest\.hrefs\.hosts"):
            hosts.check(href)
    with pytest.raises(RejectedError, match=r"ingest\.hrefs\.schemes"):
        policy(root, schemes=frozenset({"https"})).check("http://example.com/a")
    with pytest.raises(RejectedError, match="add 'file'"):
        policy(root, schemes=frozenset({"https"})).check("a.tif", base=str(root / "x.json"))


def test_a_server_that_the_user_named_is_trusted_and_no_other(root):
    trusting = policy(root, schemes=frozenset({"https"}), hosts=("example.com",)).trusting("http://127.0.0.1:8/api")
    assert trusting.check("http://127.0.0.1:8/search?page=2") == "http://127.0.0.1:8/search?page=2"
    trusting.check_resolved("http://127.0.0.1:8/search")
    for href in ("http://127.0.0.1:9/search", "https://127.0.0.1:8/search", "//[abc/a"):
        with pytest.raises(RejectedError):
            trusting.check(href, base="http://127.0.0.1:8/api")


def test_links_do_not_lead_out(root):
    os.symlink(root.parent / "secret.tif", root / "link.tif")
    secret = root.parent / "secret.tif"
    with pytest.raises(RejectedError, match=rf"it leads by a link to {secret}, which lies outside the allowed folders"):
        policy(root).check("link.tif", base=str(root / "item.json"))
    with pytest.raises(RejectedError, match="it lies outside the allowed folders"):
        policy(root).check("../secret.tif", base=str(root / "item.json"))
    assert policy(root, roots=(root, root.parent)).check("link.tif", base=str(root / "item.json"))


def test_names_that_lead_to_private_addresses(root, monkeypatch):
    def answer(host, *_, **__):
        addresses = {"public.example": ["93.184.216.34"], "rebound.example": ["93.184.216.34", "10.0.0.7"]}
        if host not in addresses:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", answer)  # no test asks a name server
    policy(root).check_resolved("https://public.example/a.tif")
    policy(root).check_resolved("a.tif")
    for href, reason in (
        ("https://rebound.example/a.tif", "bad_href"),
        ("https://unknown.example/a.tif", "unreachable"),
    ):
        with pytest.raises(RejectedError) as caught:
            policy(root).check_resolved(href)
        assert caught.value.reason == reason
        policy(root, allow_private=True).check_resolved(href)
    policy(root).check_resolved("https://unknown.example/a.tif", unknown_host=False)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_law_a_local_result_lies_below_a_root(text):
    root = Path("tests").resolve()
    try:
        href = HrefPolicy(frozenset({"file"}), (root,)).check(text, base=str(root / "item.json"))
    except RejectedError:
        return
    assert os.path.realpath(href).startswith(str(root))


def test_local_hrefs_are_relative_inside_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_href(tmp_path / "data" / "a.tif") == os.path.join("data", "a.tif")
    assert local_href("/elsewhere/a.tif") == "/elsewhere/a.tif"


def test_redact():
    assert redact("https://u:p@host/a.tif?sig=secret#x") == "https://host/a.tif"
    assert redact("data/a?b.tif") == "data/a?b.tif"


def test_signers():
    assert load_signer("none")("https://x/a") == "https://x/a"
    signer = load_signer("a2mae.remote.policy:redact")
    assert signer("https://x/a?b") == "https://x/a" and signer("a?b") == "a?b"
    for spec in ("nothing.here:f", "a2mae.remote.policy:absent", "json", "a2mae.remote.policy:_MAX_LENGTH"):
        with pytest.raises(ValueError, match=r"ingest\.source\.signing"):
            load_signer(spec)
    with pytest.raises(ValueError, match=r"write a2mae\.remote\.fetch:planetary_computer"):
        load_signer("a2mae.stssd.access.signing:planetary_computer")
    load_signer("a2mae.remote.fetch:planetary_computer")


def test_relative_hrefs_are_read_as_the_file_is_called(root):
    base = str(root / "catalog.json")
    for name in ("b c.tif", "d%20e.tif", "f.tif"):
        (root / name).touch()
    (root / "sub").mkdir()
    (root / "sub" / "g.tif").touch()
    spelled = {"b%20c.tif": "b c.tif", "d%20e.tif": "d%20e.tif", ".\\sub\\g.tif": "./sub/g.tif", "f.tif": "f.tif"}
    for href, name in spelled.items():
        assert policy(root).check(href, base=base) == local_href(root / name)
    for href in ("..%2Fsecret.tif", "..\\secret.tif", "%2Fetc%2Fpasswd", "sub%2F..%2F..%2Fsecret.tif"):
        with pytest.raises(RejectedError, match="outside the allowed folders"):
            policy(root).check(href, base=base)


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("https://example.com/a b/ü.tif?x=ä&y=1 2", "https://example.com/a%20b/%C3%BC.tif?x=%C3%A4&y=1%202"),
        ("https://example.com/a%20b.tif?sig=a%2Fb%3D", "https://example.com/a%20b.tif?sig=a%2Fb%3D"),
        ("s3://bucket/a b/ü.tif", "s3://bucket/a b/ü.tif"),
    ],
)
def test_spaces_and_umlauts_are_written_as_servers_read_them(root, href, address):
    assert policy(root).check(href) == address


@pytest.mark.parametrize("href", ["a\ud800.tif", "https://example.com/\udfff", "C:/a.tif", "D:\\a.tif"])
def test_what_no_address_can_be(root, href):
    with pytest.raises(RejectedError) as caught:
        policy(root).check(href, base=str(root / "catalog.json"))
    assert caught.value.reason == "bad_href"


POINT = {"type": "Feature", "properties": {"class": "a"}, "geometry": {"type": "Point", "coordinates": [12, 51]}}
CODES = {
    "EPSG:4326": 4326, "epsg:32633": 32633, "urn:ogc:def:crs:EPSG::32633": 32633, "CRS84": 4326, "WGS84": 4326,
    "urn:ogc:def:crs:OGC:1.3:CRS84": 4326, "http://www.opengis.net/def/crs/EPSG/0/32633": 32633,
    "ESRI:54009": "ESRI:54009",
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_a_crs_that_is_known_is_the_one_that_is_read(tmp_path, name):
    crs = {"type": "name", "properties": {"name": name}}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [POINT], "crs": crs}))
    assert read_features(tmp_path / "a.geojson").crs == CRS.from_user_input(CODES[name])


UNKNOWN = (
    "ETRS89 / UTM zone 33N",
    "mystery",
    "EPSG:999999",
    "",
    None,
    4326,
    "/etc/passwd",
    "file:/etc/passwd",
    "+proj=x",
)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_crs_that_nobody_knows_is_not_taken_for_wgs_84(tmp_path, name):
    """As GDAL takes it, without a word."""
    named = {"type": "name", "properties": {"name": name}}
    for crs in (named, {"Type": "Name", "PROPERTIES": {"Name": name}}, {"type": "name"}):
        (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [POINT], "crs": crs}))
        with pytest.raises(InputError, match=r"no code of a known reference system: write the one .* EPSG:4326"):
            read_features(tmp_path / "a.geojson")


def test_vector_files_that_name_other_files_and_servers_are_not_read(tmp_path):
    from helpers.http_server import serve_files

    with serve_files(tmp_path) as server:
        link = {"type": "link", "properties": {"href": f"{server.url}/crs.wkt", "type": "ogcwkt"}}
        for crs, told in ((link, "a link"), ({**link, "type": "URL"}, "a link"), ({"type": "\u006cink"}, "a link")):
            document = {"type": "FeatureCollection", "features": [], "crs": crs}
            (tmp_path / "a.geojson").write_text(json.dumps(document))
            with pytest.raises(InputError, match=told):
                check_vector(tmp_path / "a.geojson")
        # GDAL reads keys in any letters, the first of two, and a CRS of every geometry.
        point = {"type": "Point", "coordinates": [1, 2], "crs": link}
        feature = {"type": "Feature", "properties": {}, "geometry": point}
        named = {"type": "name", "properties": {"name": "EPSG:4326"}}
        for document in (
            {"type": "FeatureCollection", "features": [feature]},
            {"type": "FeatureCollection", "features": [], "CRS": link},
            {
                "type": "FeatureCollection",
                "features": [],
                "crs": {"TYPE": "link", **named, "properties": link["properties"]},
            },
            {"type": "FeatureCollection", "features": [], "crs": {"type": "url", "Properties": {"URL": server.url}}},
        ):
            for name in ("a.geojson", "b.geojson"):
                text = json.dumps(document)
                twice = text[:-1] + ', "crs": ' + json.dumps(named) + "}"
                (tmp_path / name).write_text(text if name == "a.geojson" else twice)
                with pytest.raises(InputError, match="a link"):
                    check_vector(tmp_path / name)
                with pytest.raises(InputError, match="a link"):
                    read_features(tmp_path / name)
        road = {**feature, "geometry": None, "properties": {"type": "link", "road": {"type": "link", "id": 1}}}
        (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [road]}))
        check_vector(tmp_path / "a.geojson")
        (tmp_path / "a.shp").write_text("\ufeff <OGRVRTDataSource/>")
        with pytest.raises(InputError, match="is XML"):
            check_vector(tmp_path / "a.shp")
        assert server.requests == []
    for crs in (None, {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}):
        (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [], "crs": crs}))
        check_vector(tmp_path / "a.geojson")
    (tmp_path / "a.geojson").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        check_vector(tmp_path / "a.geojson")
