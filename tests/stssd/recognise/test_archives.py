"""Archives are unpacked whole and below one folder, or not at all."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a2mae.errors import InputError
from a2mae.files import WriteError
from a2mae.stssd.recognise import archives
from a2mae.stssd.recognise.archives import unpack
from a2mae.stssd.recognise.recognise import recognise
from helpers.deliveries import write_landsat, write_safe


def tar(path, *members):
    with tarfile.open(path, "w") as bundle:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


def test_a_landsat_bundle_and_a_sentinel_zip_become_products(tmp_path):
    bundle, safe = write_landsat(tmp_path / "made"), write_safe(tmp_path / "made")
    with tarfile.open(tmp_path / f"{bundle.name}.tar", "w") as out:
        for path in sorted(bundle.iterdir()):
            out.add(path, arcname=path.name)
    with zipfile.ZipFile(tmp_path / f"{safe.name}.zip", "w") as out:
        for path in sorted(safe.rglob("*")):
            out.write(path, path.relative_to(safe.parent))
    packed = archives.archives_in(tmp_path)
    told = unpack(packed, tmp_path / "out")
    assert [line.split(":")[0] for line in told] == [f"unpacked {path.name}" for path in packed]
    products = recognise(tmp_path / "out").products
    assert sorted(product.name for product in products) == ["landsat-oli-c2-l2", "sentinel-2-l2a-n0509"]
    assert all(not product.unknown for product in products)
    assert "is kept" in unpack(packed, tmp_path / "out")[0]


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("../evil.txt", b"x")], "no plain path below it"),
        ([("/etc/evil.txt", b"x")], "no plain path below it"),
        ([("a/../../evil.txt", b"x")], "no plain path below it"),
        ([(".hidden", b"x")], "no plain path below it"),
        ([("a.tif", b"x"), ("a.tif", b"y")], "twice, or below a file"),
        ([("a", b"x"), ("a/b.tif", b"y")], "twice, or below a file"),
        ([("fine.tif", b"x"), (link("l.tif", "/etc/passwd"), b"")], "which is no file"),
    ],
)
def test_what_leads_out_of_the_folder_is_not_unpacked(tmp_path, members, told):
    path = tar(tmp_path / "scene.tar", *members)
    with pytest.raises(InputError, match=told):
        unpack([path], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["out", "scene.tar"], "nothing of it is left"


@given(st.text(min_size=1, max_size=40))
@example("\0")
@example("\0/../../x")
def test_law_a_member_lies_below_the_folder_or_is_refused(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("law")
    with zipfile.ZipFile(folder / "x.zip", "w") as out:
        member = zipfile.ZipInfo()
        member.filename = name  # as it is: the constructor cuts it at a zero
        try:
            out.writestr(member, b"1")
        except UnicodeEncodeError:
            return
    try:
        unpack([folder / "x.zip"], folder / "out")
    except InputError:
        assert not list((folder / "out").iterdir())
    else:
        assert all(p.is_relative_to(folder / "out/x") for p in (folder / "out").rglob("*") if p.is_file())


def test_an_archive_is_bounded_and_a_broken_one_told(tmp_path, monkeypatch):
    path = tar(tmp_path / "big.tar", ("a.tif", b"0" * 2**21))
    monkeypatch.setattr(archives, "_MOST_BYTES", 2**20)
    with pytest.raises(InputError, match=r"holds more than 0\.0 GiB"):
        unpack([path], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "cut.tar").write_bytes(path.read_bytes()[:700])
    (tmp_path / "no.zip").write_bytes(b"hello")
    for name in ("cut.tar", "no.zip"):
        with pytest.raises(InputError, match=r"cannot be unpacked .*fetch it again"):
            unpack([tmp_path / name], tmp_path / "out")


def test_a_broken_archive_does_not_cost_the_one_beside_it(tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"hello")
    whole = tar(tmp_path / "whole.tar", ("a.tif", b"x"))
    told = unpack([tmp_path / "cut.zip", whole], tmp_path / "out")
    assert told[0].startswith(f"left out: {tmp_path / 'cut.zip'} cannot be unpacked")
    assert told[1].startswith("unpacked whole.tar: 1 file")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["whole", "a.tif"]


@pytest.mark.parametrize("packer", ["zip", "tar"])
@pytest.mark.parametrize("name", ["a" * 300 + ".tif", "/".join(["a" * 200] * 25) + ".tif"], ids=["name", "path"])
def test_a_member_whose_path_no_file_may_have_is_told(tmp_path, packer, name):
    path = tmp_path / f"long.{packer}"
    if packer == "tar":
        tar(path, (name, b"x"))
    else:
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(name, b"x")
    with pytest.raises(
        InputError, match=r"long\.(zip|tar), 'aaa.*', cannot be unpacked \(File name too long\): unpack"
    ):
        unpack([path], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED])
def test_a_damaged_member_is_told_with_its_name(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", method) as out:
        out.writestr("a.tif", np.random.default_rng(0).bytes(3000) + b"y" * 3000)
    packed = bytearray((tmp_path / "bad.zip").read_bytes())
    packed[45:120] = b"\xff" * 75
    (tmp_path / "bad.zip").write_bytes(packed)
    with pytest.raises(InputError, match=r"bad\.zip, 'a\.tif', cannot be unpacked \(.+\): fetch it again"):
        unpack([tmp_path / "bad.zip"], tmp_path / "out")


def test_names_in_an_archive_that_are_no_text_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        out.writestr("é.tif", b"x")
    packed = (tmp_path / "bad.zip").read_bytes()
    (tmp_path / "bad.zip").write_bytes(packed.replace("é".encode(), b"\xff\xff"))
    with pytest.raises(InputError, match=r"bad\.zip cannot be unpacked \(.*decode.*\): fetch it again"):
        unpack([tmp_path / "bad.zip"], tmp_path / "out")


def test_a_full_disk_is_not_the_archive_s_fault(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_members", full)
    with pytest.raises(WriteError, match="No space left on device; make room there"):
        unpack([tar(tmp_path / "a.tar", ("a.tif", b"x"))], tmp_path / "out")
