"""A run that learns from a teacher: whose features they are, computed once, in the identity, resumed to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_loop import StopAfter, weights
from torch.testing import assert_close
from training_runs import make_spec

from a2mae.models import CheckpointError, create_model, from_pretrained, save_pretrained
from a2mae.models.timm_encoder import load_timm
from a2mae.training.data.draw import Draw
from a2mae.training.data.loader import SampleReader
from a2mae.training.data.prepare import prepare
from a2mae.training.data.taught import GRID, TEACHER_FILE, TeacherFeatures, shares
from a2mae.training.launch import StopRequest
from a2mae.training.loop import train
from a2mae.training.parameters import PretrainParameters, TeacherParameters
from a2mae.training.spec import RunSpec, SpecificationError, read_spec
from a2mae.training.teacher import pin_teacher, write_teacher_features

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Weights of a small network of timm, made at random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), path)
    return path


def taught(run_dir: Path, store, file: Path, method: str = "a2mae", *, weight: float = 1.0, **changes) -> RunSpec:
    spec = make_spec(run_dir, store, method, **changes)
    parameters = TeacherParameters(file=str(file), model="test_vit", weight=weight, licence="Apache-2.0")
    spec = spec.replace(teacher=pin_teacher(parameters, run_dir))
    spec.write(run_dir)
    return spec


@given(st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1))
def test_law_a_window_is_shared_out_among_the_cells_that_it_covers(side, left, top):
    found = shares((left * (1 - side), top * (1 - side), side)).reshape(GRID, GRID)
    assert abs(float(found.sum()) - 1) < 1e-5 and (found >= 0).all()
    centre = (found.sum(0) @ (np.arange(GRID) + 0.5)) / GRID
    assert abs(centre - (left * (1 - side) + side / 2)) < 0.5 / GRID


def test_the_features_are_the_teachers_own_of_what_a_sample_shows(tmp_path, store, file):
    spec = taught(tmp_path, store, file, image_size=64)
    reader = SampleReader(tmp_path, spec)
    write_teacher_features(tmp_path, spec, reader, CPU)
    image = int(reader.index.offsets[reader.positions[2]])
    whole = Draw(np.asarray([image]), reader.colours(image)[None], (0.0, 0.0, 1.0), (False, False, False))
    batch = prepare(reader.gather([whole], [0]), reader.tables(), 64)
    encoder, _ = load_timm("test_vit", file, bands=3)
    with torch.no_grad():
        tokens = encoder.forward_features(batch.pixels[:, 0])[0, 1:]  # 4 x 4 patches of 16: the grid itself
    features = TeacherFeatures(tmp_path / TEACHER_FILE)
    assert_close(features.of([whole])[0], tokens.mean(0), atol=2e-3, rtol=2e-3)
    corner = Draw(whole.images, whole.bands, (0.75, 0.0, 0.25), whole.flips)
    assert_close(features.of([corner])[0], tokens[3], atol=2e-3, rtol=2e-3)
    held_out = load_file(tmp_path / TEACHER_FILE)["features"][int(reader.index.offsets[reader.positions[-1] + 1]) :]
    assert len(held_out) and not held_out.any(), "no image that is held out is looked at"


def test_they_are_computed_once_and_anew_where_anything_is_another(tmp_path, store, file, caplog):
    own = tmp_path / "vit.safetensors"
    own.write_bytes(file.read_bytes())
    spec = taught(tmp_path / "run", store, own)
    reader = SampleReader(tmp_path / "run", spec)
    write_teacher_features(tmp_path / "run", spec, reader, CPU)
    before = (tmp_path / "run" / TEACHER_FILE).read_bytes()
    own.unlink()
    write_teacher_features(tmp_path / "run", spec, reader, CPU)  # the file is not needed again
    other = spec.replace(sampling=spec.sampling.replace(image_size=64))
    with pytest.raises(CheckpointError, match=r"vit\.safetensors is missing"):
        write_teacher_features(tmp_path / "run", other, reader, CPU)
    (tmp_path / "run" / TEACHER_FILE).write_bytes(before[: len(before) // 2])  # torn
    own.write_bytes(file.read_bytes())
    write_teacher_features(tmp_path / "run", spec, reader, CPU)
    assert (tmp_path / "run" / TEACHER_FILE).read_bytes() == before
    save_file({**load_file(own), "norm.bias": torch.ones(64)}, own)
    with pytest.raises(SpecificationError, match=r"vit\.safetensors has changed since this run was specified"):
        write_teacher_features(tmp_path / "run", other, reader, CPU)


@pytest.mark.parametrize("method", ["a2mae", "mae"])
def test_a_taught_run_resumes_to_the_bit_and_says_who_taught_it(tmp_path, store, file, method):
    whole = taught(tmp_path / "whole", store, file, method)
    assert train(tmp_path / "whole", whole, StopRequest())
    parts = taught(tmp_path / "parts", store, file, method)
    assert not train(tmp_path / "parts", parts, StopAfter(5))
    assert train(tmp_path / "parts", read_spec(tmp_path / "parts"), StopRequest())
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert from_pretrained(tmp_path / "whole" / "model").teacher.weight.shape == (64, 64)
    said = json.loads((tmp_path / "whole" / "model" / "config.json").read_text())["teacher"]
    assert said["file"] == "vit.safetensors" and said["sha256"] == whole.teacher.sha256
    assert said["licence"] == "Apache-2.0" and said["model"] == "test_vit"
    plain = make_spec(tmp_path / "plain", store, method)
    moved = whole.replace(teacher=whole.teacher.replace(file="../elsewhere", licence=None))
    assert moved.identity == whole.identity != plain.identity
    for change in ({"sha256": "ab" * 32}, {"weight": 2.0}, {"model": "test_vit2"}):
        assert whole.replace(teacher=whole.teacher.replace(**change)).identity != whole.identity
    assert "teacher" not in plain.model_dump(mode="json")


@pytest.mark.parametrize("method", ["a2mae", "mae"])
def test_the_class_token_learns_the_features_and_parts_of_a_batch_add_up(tmp_path, store, file, method):
    spec = taught(tmp_path, store, file, method, weight=2.0)
    reader = SampleReader(tmp_path, spec)
    write_teacher_features(tmp_path, spec, reader, CPU)
    torch.manual_seed(0)
    model = create_model(spec.model.name, **spec.model_options)
    raw = reader.read(reader.keys(0, 4))
    batch, hidden = prepare(raw, reader.tables(), spec.sampled_size), torch.zeros(4, 3, 16, dtype=torch.bool)
    hidden[:, :, ::2] = True
    with torch.no_grad():
        plain, output = (model(batch, hidden=hidden, teacher=given) for given in (None, raw.teacher))
        parts = []
        for one in (slice(0, 1), slice(1, 4)):
            part = raw[one]
            half = prepare(part, reader.tables(), spec.sampled_size)
            found = model(half, hidden=hidden[one], teacher=part.teacher)
            parts.append((found.loss, found.token_weight.sum()))
    assert 0 < float(output.loss - plain.loss) < 2.0 * 2
    total = sum(loss * weight for loss, weight in parts) / sum(weight for _, weight in parts)
    assert_close(total, output.loss, atol=1e-5, rtol=1e-5)
    nobody = model(batch, hidden=hidden, teacher=torch.zeros_like(raw.teacher))
    assert_close(nobody.loss, plain.loss)  # radar: an anchor without features teaches nothing
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        model(batch, hidden=hidden, teacher=raw.teacher).loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = model(batch, hidden=hidden, teacher=raw.teacher).loss - model(batch, hidden=hidden).loss
    assert float(after) < 0.5 * float(output.loss - plain.loss)


def test_a_model_of_ours_teaches_too_and_what_cannot_is_told(tmp_path, store, file):
    sizes = {"embed_dim": 64, "depth": 1, "decoder_dim": 32, "decoder_depth": 1}
    for name, options in (("three", {}), ("four", {"in_chans": 4}), ("any", {"bands": "wavelength"})):
        save_pretrained(create_model("a2mae_vit_tiny_patch8", **sizes, **options), tmp_path / name)
    for name in ("three", "any"):
        spec = make_spec(tmp_path / "run", store)
        teacher = pin_teacher(TeacherParameters(file=str(tmp_path / name)), tmp_path / "run")
        spec = spec.replace(teacher=teacher)
        reader = SampleReader(tmp_path / "run", spec)
        write_teacher_features(tmp_path / "run", spec, reader, CPU)
        assert reader.read(reader.keys(0, 2)).teacher.shape == (2, 64)
    with pytest.raises(CheckpointError, match=r"reads 4 bands .* it is shown red, green and blue: take one of three"):
        pin_teacher(TeacherParameters(file=str(tmp_path / "four")), tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit timm's test_resnet"):
        pin_teacher(TeacherParameters(file=str(file), model="test_resnet"), tmp_path)
    with pytest.raises(CheckpointError, match=r"none\.pth is missing"):
        pin_teacher(TeacherParameters(file=str(tmp_path / "none.pth"), model="test_vit"), tmp_path)
    group = {
        "method": "scale_mae", "seed": 0, "model": {"size": "tiny", "patch_size": 8}, "sampling": {},
        "optimizer": {"steps": 1, "batch_size": 1}, "teacher": {"file": str(file), "model": "test_vit"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="teacher: a2mae and mae learn from one, found method scale_mae"):
        PretrainParameters.model_validate(group)
    assert dict(PretrainParameters.model_validate({**group, "method": "mae"}).named_paths()) == {
        "teacher.file": str(file)
    }
    with pytest.raises(ValueError, match="teacher_width and teacher_weight must both be positive, or both 0"):
        create_model("mae_vit_tiny_patch8", teacher_width=3)
