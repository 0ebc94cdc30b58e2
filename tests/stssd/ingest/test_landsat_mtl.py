"""MTL files: the factors of the product's own level, whatever else the file holds."""

from __future__ import annotations

import pytest

from a2mae.errors import RejectedError
from a2mae.stssd.ingest.landsat_mtl import read_mtl


def group(name, *lines):
    return [f"  GROUP = {name}", *(f"    {line}" for line in lines), f"  END_GROUP = {name}"]


def factors(mult, add, count=8):
    return [f"REFLECTANCE_{k}_BAND_{b} = {v}" for b in range(1, count) for k, v in (("MULT", mult), ("ADD", add))]


IMAGE = ('SPACECRAFT_ID = "LANDSAT_8"', "DATE_ACQUIRED = 2023-06-01", 'SCENE_CENTER_TIME = "10:02:11.1234567Z"',
         "CLOUD_COVER = 3.10", "SUN_ELEVATION = 30.0")  # fmt: skip
LEVEL2 = group("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", *factors("2.75e-05", "-0.2"))
LEVEL1 = group("LEVEL1_RADIOMETRIC_RESCALING", *factors("2.0000E-05", "-0.100000", 10))
OLD = group("LEVEL1_PROCESSING_RECORD", 'PROCESSING_LEVEL = "L1TP"', "DATE_ACQUIRED = 1999-01-01")


def write(path, *groups):
    lines = ["GROUP = LANDSAT_METADATA_FILE", *(line for part in groups for line in part),
             "END_GROUP = LANDSAT_METADATA_FILE", "END"]  # fmt: skip
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("order", [(LEVEL2, OLD, LEVEL1), (LEVEL1, LEVEL2, OLD)])
def test_surface_reflectance_has_its_own_factors_and_no_sun(tmp_path, order):
    contents = group("PRODUCT_CONTENTS", 'PROCESSING_LEVEL = "L2SP"', "COLLECTION_NUMBER = 02")
    found = read_mtl(write(tmp_path / "a_MTL.txt", contents, group("IMAGE_ATTRIBUTES", *IMAGE), *order))
    assert found.level == 2 and set(found.reflectance.values()) == {(2.75e-5, -0.2)} and len(found.reflectance) == 7
    assert (found.platform, found.cloud_cover_pct) == ("landsat-8", 3.1)
    assert f"{found.datetime:%Y-%m-%d %H:%M:%S.%f}" == "2023-06-01 10:02:11.123456"


def test_level_1_is_divided_by_the_sun(tmp_path):
    contents = group("PRODUCT_CONTENTS", 'PROCESSING_LEVEL = "L1TP"')
    found = read_mtl(write(tmp_path / "a_MTL.txt", contents, group("IMAGE_ATTRIBUTES", *IMAGE), LEVEL1))
    assert found.level == 1 and found.reflectance["9"] == (pytest.approx(4e-5), pytest.approx(-0.2))


@pytest.mark.parametrize(
    "groups",
    [
        [group("IMAGE_ATTRIBUTES", *IMAGE[:-1], "SUN_ELEVATION = -3"), LEVEL1],
        [group("IMAGE_ATTRIBUTES", *IMAGE[:-1], "SUN_ELEVATION = nan"), LEVEL1],
        [group("IMAGE_ATTRIBUTES", "DATE_ACQUIRED = 99999-01-01", *IMAGE[2:]), LEVEL1],
        [group("PRODUCT_CONTENTS", 'PROCESSING_LEVEL = "L2SP"'), group("IMAGE_ATTRIBUTES", *IMAGE), LEVEL1],
        [["]" * 10_000, "GROUP", "= = ="]],
    ],
)
def test_what_is_no_metadata_costs_its_scene(tmp_path, groups):
    with pytest.raises(RejectedError) as error:
        read_mtl(write(tmp_path / "a_MTL.txt", *groups))
    assert error.value.reason == "no_metadata"


def test_a_pipe_is_no_metadata(tmp_path):
    import os

    os.mkfifo(tmp_path / "a_MTL.txt")
    with pytest.raises(RejectedError, match="not a Landsat MTL file"):
        read_mtl(tmp_path / "a_MTL.txt")
