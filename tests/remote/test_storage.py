"""Parts of a piece of work: kept whole, and valid only for what they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2mae.remote.storage import Folder, Parts


@pytest.fixture(params=["file", "memory"])
def folder(request, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "deep/parts") if request.param == "file" else f"memory:/{tmp_path}/parts")


def test_a_part_is_valid_only_for_what_it_was_made_of(folder: Folder) -> None:
    parts, others = Parts(folder, "of this"), Parts(folder, "of that")
    assert parts.get("a") is None and not parts.keys()
    parts.put("a", b"two\nlines")
    assert parts.get("a") == b"two\nlines" and parts.keys() == {"a"}
    assert others.get("a") is None and others.get("a", of_any=True) == b"two\nlines"
    others.put("a", b"")
    assert others.get("a") == b"" and parts.get("a") is None


def test_all_parts_can_be_removed_and_nothing_else(folder: Folder) -> None:
    parts, beside = Parts(folder, "x"), Folder(f"{folder.url}-beside")
    parts.clear()  # nothing is there yet
    parts.put("a", b"1")
    beside.write("b", b"2")
    parts.clear()
    assert not parts.keys() and parts.get("a") is None and beside.read("b") == b"2"


def test_a_part_that_was_torn_is_none(folder: Folder) -> None:
    folder.write("a", b"")
    assert Parts(folder, "x").get("a") is None
