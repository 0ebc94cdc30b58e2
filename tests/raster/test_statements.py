"""What files say of themselves is used, and held against what was stated."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2mae.errors import RejectedError
from a2mae.raster.header import FileBands
from a2mae.raster.statements import check_descriptions, check_gsd, described_bands, factors_of
from a2mae.sensors import BUILTIN_SENSORS

S2, LANDSAT, NAIP = (BUILTIN_SENSORS[name] for name in ("sentinel-2-l2a", "landsat-oli-c2-l2", "naip"))
SPELLINGS = (
    "{name}",
    "{plain}",
    "{common}",
    "{plain}, central wavelength 665 nm",
    "SR_{plain}",
    "Band {name} ({common})",
)


def bands(*descriptions: str, dtype: str = "uint16", scale: float = 1.0, offset: float = 0.0) -> FileBands:
    count = len(descriptions)
    return FileBands(
        shape=(8, 8), count=count, dtype=dtype, nodata=(None,) * count, scales=(scale,) * count,
        offsets=(offset,) * count, descriptions=descriptions, alpha=None,
    )  # fmt: skip


@given(order=st.permutations(S2.bands), spelling=st.sampled_from(SPELLINGS), count=st.integers(2, 12))
def test_bands_are_known_however_they_are_written(order, spelling, count) -> None:
    said = [
        spelling.format(name=band.name, plain=band.name.replace("B0", "B"), common=band.common_name)
        for band in order[:count]
    ]
    names = [band.name for band in order[:count]]
    numbered = names == [f"B{number:02d}" for number in range(1, count + 1)]
    assert described_bands(bands(*said), S2) == ((None,) * count if numbered else tuple(order[:count]))
    check_descriptions(bands(*said), names, S2, "a.tif", "rule 's2'")
    if not numbered:
        with pytest.raises(
            RejectedError, match=r"a\.tif describes its band \d+ as .*, but rule 's2' says that it is B"
        ):
            check_descriptions(bands(*said), names[::-1], S2.subset(names), "a.tif", "rule 's2'")


@pytest.mark.parametrize(
    ("sensor", "said", "expected"),
    [
        (NAIP, ("B1", "B2", "B3", "B4"), (None,) * 4),  # numbers, as many programs write them
        (NAIP, ("Band 1", "Band 2", "Band 3", "Band 4"), (None,) * 4),
        (S2, ("", "", ""), (None,) * 3),
        (S2, ("NDVI", "elevation"), (None, None)),
        (S2, ("B4 minus B3", "B8"), (None, "B08")),
        (LANDSAT, ("SR_B4", "B3", "blue"), ("SR_B4", "SR_B3", "SR_B2")),
    ],
)
def test_what_names_no_band_says_nothing(sensor, said, expected) -> None:
    assert tuple(band and band.name for band in described_bands(bands(*said), sensor)) == expected


@given(
    tags=st.sampled_from([(1.0, 0.0), (1e-4, 0.0), (1e-4, -0.1)]),
    scale=st.sampled_from([None, 1e-4, 1.0]),
    offset=st.sampled_from([None, 0.0, -0.1]),
    dtype=st.sampled_from(["uint16", "float32"]),
)
def test_tags_agree_with_what_is_stated_or_the_file_is_rejected(tags, scale, offset, dtype) -> None:
    file = bands("", dtype=dtype, scale=tags[0], offset=tags[1])
    tagged = tags != (1.0, 0.0)
    contradicted = tagged and (scale not in (None, tags[0]) or offset not in (None, tags[1]))
    if contradicted:
        with pytest.raises(
            RejectedError, match=r"a\.tif is tagged with scale 0\.0001 and offset .* segment\.data says"
        ):
            factors_of(file, 1, (scale, offset), (2e-5, -0.2), shown="a.tif", where="segment.data")
        return
    found = factors_of(file, 1, (scale, offset), (2e-5, -0.2), shown="a.tif", where="segment.data")
    otherwise = tags if tagged else (1.0, 0.0) if dtype == "float32" else (2e-5, -0.2)
    assert found == (scale or otherwise[0], otherwise[1] if offset is None else offset)


def test_pixels_of_another_size_are_rejected_with_both_sizes() -> None:
    check_gsd(10.2, 10, "a.tif", "segment.data.gsd_m")
    with pytest.raises(
        RejectedError, match=r"a\.tif has pixels of 0\.5 m on the ground, but segment\.data\.gsd_m says 10 m"
    ):
        check_gsd(0.5, 10, "a.tif", "segment.data.gsd_m")


@given(
    tags=st.sampled_from(
        [(0.0, 0.0), (0.0, 5.0), (1e-40, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1e-4, math.nan), (1.0, -math.inf)]
    ),
    stated=st.tuples(st.sampled_from([None, 1e-4]), st.sampled_from([None, 0.0])),
    dtype=st.sampled_from(["uint16", "float32"]),
)
def test_tags_that_decode_no_number_are_rejected_whatever_is_stated(tags, stated, dtype) -> None:
    file = bands("", dtype=dtype, scale=tags[0], offset=tags[1])
    with pytest.raises(RejectedError, match=r"a\.tif is tagged with scale .* decode no stored number") as error:
        factors_of(file, 1, stated, (2e-5, -0.2), shown="a.tif", where="segment.data")
    assert error.value.reason == "bad_metadata"
