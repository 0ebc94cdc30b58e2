"""Model directories and files of weights that somebody made up end in a sentence: nothing hangs or fills memory."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from a2mae.errors import InputError
from a2mae.models import CheckpointError, create_model, load_encoder, save_pretrained
from a2mae.models.checkpoint import from_pretrained, read_config
from a2mae.models.sources import read_weights

LARGEST = {"embed_dim": 32 * 10**11, "patch_size": 10**9, "depth": 10**9, "decoder_depth": 10**9, "mlp_ratio": 1e12}
NO_NUMBERS = {"embed_dim": "64", "depth": 1.5, "num_heads": True, "mlp_ratio": -4.0, "gsd_reference_m": "10"}


@pytest.fixture
def directory(tiny, tmp_path) -> Path:
    bands = {"naip": {"B1": [0.3, 0.1]}}
    save_pretrained(create_model("mae_vit_tiny_patch8", **tiny), tmp_path / "m", config={"normalization": bands})
    return tmp_path / "m"


def change(directory: Path, **fields: object) -> None:
    path = directory / "config.json"
    document = json.loads(path.read_text())
    kwargs = fields.pop("kwargs", {})
    path.write_text(json.dumps({**document, **fields, "kwargs": {**document["kwargs"], **kwargs}}))


@pytest.mark.parametrize("load", [load_encoder, from_pretrained, read_weights])
@pytest.mark.parametrize("size", LARGEST)
def test_a_configuration_takes_no_more_memory_or_time_than_its_weights(directory, load, size):
    change(directory, kwargs={size: LARGEST[size]})
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"config\.json|does not fit"):
        load(directory)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_number_is_named(directory, name):
    change(directory, kwargs={name: NO_NUMBERS[name]})
    with pytest.raises(CheckpointError, match=f"describes no model of this version: {name} must be"):
        load_encoder(directory)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":' + "[" * 100_000, "its lists are nested too deep"),
        ('{"format_version": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"format_version": NaN}', "is not JSON: NaN is no number of JSON"),
        ('{"format_version": 1e999}', "is not JSON: 1e999 is no number of JSON"),
        ("[1]", "must be an object"),
    ],
    ids=["deep", "digits", "nan", "inf", "list"],
)
def test_a_configuration_that_is_none_is_told_as_such(directory, text, told):
    (directory / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=told):
        read_config(directory)


@pytest.mark.parametrize(
    "found", [[1, 2], {"naip": [1]}, {"naip": {"B1": {"x": 1}}}, {"naip": {"B1": [0.3]}}, {"naip": {"B1": [0, -1]}}]
)
def test_statistics_by_which_nothing_can_be_normalised_are_named(directory, found):
    change(directory, normalization=found)
    with pytest.raises(CheckpointError, match=r"expected \{sensor: \{band: \[mean, std\]\}\}"):
        read_config(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_not_waited_for(directory, name):
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CheckpointError, match="it is no regular file"):
        load_encoder(directory)
    with pytest.raises(CheckpointError, match="it is no regular file"):
        read_weights(directory if name == "config.json" else directory / name)


def changed(directory: Path, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "encoder.norm.weight": make(tensors["encoder.norm.weight"])}, path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda one: one * math.nan, "values that are not finite, in .*norm.weight"),
        (lambda one: one.to(torch.int8), "norm.weight holds int8, expected fractions"),
        (lambda one: one.to(torch.complex64), "norm.weight holds complex64, expected fractions"),
    ],
    ids=["nan", "int8", "complex"],
)
def test_weights_that_would_be_read_wrong_in_silence_are_refused(directory, make, told):
    changed(directory, make)
    for load in (load_encoder, from_pretrained, read_weights):
        with pytest.raises(CheckpointError, match=told):
            load(directory)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' + b"[" * 100_000,
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 4]}}',
    ],
    ids=["deep", "type", "shape"],
)
def test_a_header_that_lies_is_no_safetensors(directory, header):
    for length in (len(header), 2**62):
        (directory / "model.safetensors").write_bytes(struct.pack("<Q", length) + header + bytes(4))
        with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
            load_encoder(directory)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello", "it begins with b'hello'"),
        (b"<html>", "it begins with b'<html>'"),
        (b"", "it begins with b''"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "tensors of real numbers, .*found a"),
        ({"a": torch.sparse_coo_tensor([[0]], [1.0], (9,), check_invariants=True)}, "tensors of real numbers"),
        ({1: torch.zeros(1), "a": [1]}, "tensors of real numbers"),
    ],
    ids=["text", "html", "empty", "complex", "sparse", "lists"],
)
def test_a_file_that_is_no_file_of_weights_is_named(tmp_path, content, told):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=told):
        read_weights(path)


def test_a_damaged_file_of_torch_is_told_whatever_torch_raises(tmp_path):
    torch.save({"model": {f"blocks.{k}.norm1.weight": torch.ones(4) for k in range(3)}}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        at, to = (int(torch.randint(limit, (1,), generator=generator)) for limit in (len(whole), 256))
        (tmp_path / "b.pth").write_bytes(whole[:at] + bytes([to]) + whole[at + 1 :])
        with pytest.raises(InputError):  # whole or not, these three tensors are no encoder
            read_weights(tmp_path / "b.pth")
