"""Files appear whole or not at all, and with the access that the user's umask gives."""

import hashlib
import json
import os
import stat

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from a2mae.files import digest_of, file_digest, whole_file, whole_folder, write_bytes
from a2mae.models.checkpoint import save_weights
from a2mae.pipelines.datasets import (
    JSONFileDataset,
    OneFileDataset,
    PictureDataset,
    TableDataset,
    TextFileDataset,
)
from a2mae.training.checkpoints import Checkpoint, Checkpoints

DATASETS = (
    (JSONFileDataset, {"b": 1, "a": [2.5]}),
    (TextFileDataset, "<p>é</p>"),
    (PictureDataset, b"\x89PNG"),
    (TableDataset, pd.DataFrame({"a": [1, 2]})),
)


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def access(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_have_the_access_that_the_user_gives(umask, tmp_path):
    write_bytes(tmp_path / "deep" / "a.json", b"{}")
    save_weights(torch.nn.Linear(2, 2), tmp_path / "model.safetensors")
    folder = Checkpoints(tmp_path / "checkpoints", keep=1).save(Checkpoint(1, {"model": {"w": torch.ones(2)}}, {}))
    for dataset, value in DATASETS:
        dataset(filepath=str(tmp_path / dataset.__name__)).save(value)
    written = [path for path in (*tmp_path.rglob("*"), *folder.iterdir()) if path.is_file()]
    assert len(written) >= 8
    assert {path.name: oct(access(path)) for path in written} == dict.fromkeys(
        (path.name for path in written), oct(0o666 & ~umask)
    )


@pytest.mark.parametrize(("dataset", "value"), DATASETS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_dataset_reads_what_it_wrote_and_leaves_nothing_beside(dataset, value, tmp_path):
    file = dataset(filepath=str(tmp_path / "deep" / "file"), metadata={"layer": "x"})
    assert not file.exists() and file.metadata == {"layer": "x"}
    file.save(value)
    found = file.load()
    assert found.equals(value) if isinstance(value, pd.DataFrame) else found == value
    assert file.exists() and [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="disk is full"), whole_file(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk is full")
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_the_older_one_or_the_new_one(tmp_path):
    path = tmp_path / "deep/model"
    for text in ("old", "new"):
        (tmp_path / "deep/.model.partial").mkdir(parents=True)  # of a killed run
        with whole_folder(path) as partial:
            assert not partial.exists()
            partial.mkdir()
            (partial / text).write_text(text)
            assert not (path / "new").exists()
        assert [found.name for found in path.iterdir()] == [text]
    with pytest.raises(OSError, match="disk is full"), whole_folder(path) as partial:
        partial.mkdir()
        raise OSError("disk is full")
    assert [found.name for found in path.parent.iterdir()] == ["model"] and (path / "new").read_text() == "new"
    path.rename(path.with_name(".model.older"))  # a run killed between the two moves
    with pytest.raises(OSError, match="disk is full"), whole_folder(path):
        raise OSError("disk is full")
    assert [found.name for found in path.parent.iterdir()] == ["model"] and (path / "new").read_text() == "new"


def test_one_file_needs_to_know_how_it_is_read_and_written(tmp_path):
    class Half(OneFileDataset[str]):
        def _read(self, path):
            return path.read_text()

    with pytest.raises(TypeError, match="_write"):
        Half(filepath=str(tmp_path / "a"))


def test_the_digest_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


NAMES = st.lists(st.binary(min_size=1, max_size=8).map(os.fsdecode) | st.text(), max_size=4)


@given(NAMES, NAMES)
def test_law_names_of_files_have_a_digest_whatever_their_bytes(names, others):
    assert (digest_of(names) == digest_of(others)) == (names == others)


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_law_the_digest_of_text_is_that_of_its_bytes(names):
    text = json.dumps(names, separators=(",", ":"), ensure_ascii=False)
    assert digest_of(names) == hashlib.sha256(text.encode()).hexdigest()
