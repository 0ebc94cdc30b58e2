"""The index of sets: memory-mapped, the same bytes for the same tables, torn files refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from training_runs import make_index

from a2mae.training.data.index import HELD_OUT, TRAIN, SetIndex, SetIndexError, build_index


def test_what_is_written_is_mapped_back(tmp_path: Path) -> None:
    index = make_index()
    index.write(tmp_path / "index.npz")
    read = SetIndex.open(tmp_path / "index.npz")
    for name in index.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, name), getattr(index, name))
        assert name == "bands" or isinstance(getattr(read, name), np.memmap), name
    assert len(read) == 8 and read.name(3) == "set-3"
    assert read.sets_of(TRAIN).tolist() == [0, 1, 2, 3, 4, 5] and read.sets_of(HELD_OUT).tolist() == [6, 7]


def test_the_same_sets_give_the_same_bytes(tmp_path: Path) -> None:
    first = make_index().write(tmp_path / "a.npz")
    assert make_index().write(tmp_path / "b.npz") == first


def test_the_order_of_the_image_table_does_not_matter(tmp_path: Path) -> None:
    index = make_index()
    image_set = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    order = np.random.default_rng(1).permutation(len(image_set))
    shuffled = build_index(
        set_id=index.set_id,
        location=index.location,
        split=index.split,
        image_set=image_set[order],
        **{
            name: getattr(index, name)[order]
            for name in ("row", "sensor", "gsd_m", "day", "lonlat_deg", "geosot", "is_anchor")
        },
    )
    assert shuffled.write(tmp_path / "a.npz") == index.write(tmp_path / "b.npz")


def test_bands_that_images_lack_are_mapped_back(tmp_path: Path) -> None:
    index = make_index()
    bands = np.ones((len(index.row), 12), np.bool_)
    dataclasses.replace(index, bands=None).write(tmp_path / "whole.npz")
    bands[3, 5:] = False
    dataclasses.replace(index, bands=bands).write(tmp_path / "index.npz")
    read = SetIndex.open(tmp_path / "index.npz")
    assert isinstance(read.bands, np.memmap)
    np.testing.assert_array_equal(read.bands, bands)
    assert SetIndex.open(tmp_path / "whole.npz").bands is None
    with pytest.raises(SetIndexError, match="'bands' must have shape"):
        dataclasses.replace(index, bands=bands[1:])


@pytest.mark.parametrize("damage", ["cut", "foreign", "absent", "pickle"])
def test_a_torn_or_foreign_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "index.npz"
    digest = make_index().write(path)
    assert len(digest) == 64
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "foreign":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickle":
        arrays = {name: getattr(make_index(), name) for name in make_index().__dataclass_fields__}
        del arrays["bands"]
        np.savez(path, **{**arrays, "set_id": np.asarray([object()] * 8, dtype=object)})
    else:
        path.unlink()
    with pytest.raises(SetIndexError, match="cannot read the index of sets"):
        SetIndex.open(path)


def test_arrays_that_contradict_each_other_are_refused() -> None:
    index = make_index()
    fields = {name: getattr(index, name) for name in index.__dataclass_fields__}
    with pytest.raises(SetIndexError, match=r"'day' must have shape \(32,\)"):
        SetIndex(**{**fields, "day": index.day[1:]})
    with pytest.raises(SetIndexError, match="'offsets' must rise"):
        SetIndex(**{**fields, "offsets": index.offsets[::-1]})
