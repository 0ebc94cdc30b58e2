"""Redirects are followed where the policy allows, and to no other address: two servers on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2mae.errors import ReadError, RejectedError
from a2mae.raster.header import RasterHeader, read_headers
from a2mae.raster.read import RasterReader
from a2mae.remote.fetch import ask, check_redirects
from a2mae.remote.policy import HrefPolicy, ReadingParameters, RemoteAccess, VerifyChecksums
from a2mae.remote.storage import Folder
from a2mae.remote.verify import Verifier
from a2mae.scenes import BandAsset
from a2mae.sensors import Units
from a2mae.stssd.ingest.parameters import ApiParameters
from a2mae.stssd.ingest.stac_documents import search
from helpers.http_server import Served, serve_files
from helpers.rasters import write_tif

ONLY_NUMBERS = HrefPolicy(frozenset({"http"}), (), hosts=("127.0.0.1",), allow_private=True)
"""Allows both servers by number and refuses them by name."""


@pytest.fixture
def servers(tmp_path: Path):
    """One that sends every reader on to the other, and the address it sends them to."""
    write_tif(tmp_path / "a.tif")
    with serve_files(tmp_path) as public, serve_files(tmp_path) as private:
        public.fail = lambda path: (302, {"Location": private.url.replace("127.0.0.1", "localhost") + path})
        yield public, private


def test_the_other_server_is_never_asked(servers: tuple[Served, Served], tmp_path: Path) -> None:
    public, private = servers
    href = f"{public.url}/a.tif"
    told = read_headers([href], RemoteAccess(policy=ONLY_NUMBERS))[href]
    assert isinstance(told, RejectedError) and told.reason == "bad_href"
    assert "a.tif redirects: " in told.detail and "ingest.hrefs.hosts" in told.detail
    with (
        RasterReader(access=RemoteAccess(policy=ONLY_NUMBERS)) as reader,
        pytest.raises(ReadError, match="redirects") as error,
    ):
        reader.dataset(href)
    assert error.value.reason == "bad_href"
    asset = BandAsset("B1", href, 1, 1.0, 0.0, None, Units.DN, 1.0, checksum="1220" + "0" * 64)
    reading = ReadingParameters(retries=2, retry_delay_s=0.01, verify_checksums=VerifyChecksums.ALL)
    verifier = Verifier(Folder(str(tmp_path / "work")), RemoteAccess(policy=ONLY_NUMBERS, reading=reading))
    with pytest.raises(RejectedError, match="redirects"):
        verifier.check(asset)
    answer = ask(href, 5, ONLY_NUMBERS)
    assert not answer.again and "redirects" in answer.detail
    with pytest.raises(ValueError, match="localhost"):
        search(ApiParameters(url=public.url, bbox=(0, 0, 1, 1), retries=0), ONLY_NUMBERS)
    assert not private.requests and len(public.requests) == 5  # each asked once, none tried again


def test_a_private_address_is_refused_unless_allowed(servers: tuple[Served, Served]) -> None:
    public, private = servers
    public.fail = lambda path: (307, {"Location": private.url + path})
    policy = HrefPolicy(frozenset({"http"}), ())
    # The first address is taken for checked: it was, by `HrefPolicy.check`.
    object.__setattr__(policy, "check_resolved", lambda href, **_: None)
    with pytest.raises(RejectedError, match=r"redirects: .* is private or this machine") as error:
        check_redirects(f"{public.url}/a.tif?sig=secret", policy, 5)
    assert error.value.reason == "bad_href" and "secret" not in error.value.detail
    assert not private.requests


def test_redirects_within_the_policy_are_followed(servers: tuple[Served, Served]) -> None:
    public, private = servers
    public.fail = lambda path: (301, {"Location": private.url + path})
    href = f"{public.url}/a.tif"
    assert isinstance(read_headers([href], RemoteAccess(policy=ONLY_NUMBERS))[href], RasterHeader)
    assert private.sent["/a.tif"] > 1
    private.requests.clear()
    with RasterReader(access=RemoteAccess(policy=ONLY_NUMBERS)) as reader:
        assert reader.dataset(href).read(1).any()
    # Where any host may be asked there is nothing to check, and no request for it.
    anywhere = HrefPolicy(frozenset({"http"}), (), allow_private=True)
    before = len(public.requests)
    check_redirects(href, anywhere, 5)
    assert len(public.requests) == before


def test_no_answer_is_for_the_reader_to_meet(servers: tuple[Served, Served]) -> None:
    public, _ = servers
    for answer in ((503, {}), (403, {})):
        public.fail = lambda path, answer=answer: answer
        check_redirects(f"{public.url}/a.tif", ONLY_NUMBERS, 5)
    public.fail = lambda path: (302, {"Location": public.url + path})
    with pytest.raises(RejectedError, match="redirects do not end"):
        check_redirects(f"{public.url}/a.tif", ONLY_NUMBERS, 5)
