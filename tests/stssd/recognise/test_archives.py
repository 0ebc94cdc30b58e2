"""Archives are unpacked whole and below one folder, or not at all."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a2mae.errors import InputError
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
    assert [line.split(":")[0] for line in told] == [path.name for path in packed]
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
