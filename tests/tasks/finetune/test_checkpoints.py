import logging

import numpy as np
import pytest
import torch

from a2mae.models import precision
from a2mae.models.checkpoint import load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune import checkpoints
from a2mae.tasks.finetune import finetuned as starts
from a2mae.tasks.finetune.checkpoints import FinetuneCheckpoint
from a2mae.tasks.finetune.encoders import encoder_normalisation
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import finetune, predict
from a2mae.tasks.metrics.scores import main_score
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.registry import Task
from a2mae.training.checkpoints import CheckpointWriteError
from helpers.task_samples import SENTINEL2, make_samples, spec_for

CPU = torch.device("cpu")
STEPS = 8


class Stopped(Exception):
    """What a stop is to the program."""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    made = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=2, decoder_dim=32, decoder_depth=1)
    statistics = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
    return save_pretrained(made, tmp_path_factory.mktemp("model"), config={"normalization": statistics})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_task_data(folder, spec_for(Task.CLASSIFY), make_samples(Task.CLASSIFY, count=40, size=16))
    return TaskData(folder)


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(FinetuneCheckpoint, "due", lambda self, *, last: True)


class InputsThatStop(TaskInputs):
    """Real inputs which are asked once too often."""

    left = STEPS

    def batch(self, rows):
        if self.left == 0:
            raise Stopped
        self.left -= 1
        return super().batch(rows)


class ModelThatStops(TaskModel):
    """A real model which is trained for one step too many."""

    left = STEPS

    def forward(self, batch, encoded=None):
        if self.training:
            if self.left == 0:
                raise Stopped
            self.left -= 1
        return super().forward(batch, encoded)


def run(pretrained, data, recipe, checkpoint=None, *, stop_after=None):
    """The loss and the weights that a finetuning ends with."""
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue"), encoder_normalisation(pretrained), bands_per_view=3)
    torch.manual_seed(1)
    model = ModelThatStops(encoder, HeadConfig(Task.CLASSIFY, "mean", len(data.spec.class_names), 1, 3))
    model.head = torch.nn.Sequential(torch.nn.Dropout(0.2), model.head)  # chance inside the layers, too
    model.left = -1 if stop_after is None else stop_after
    inputs = TaskInputs(data, plan)
    val = data.rows("val")
    train = data.rows("train")

    def validate(model):
        return main_score(data, val, predict(model, TaskInputs(data, plan), val, batch_size=8, device=CPU))

    history = finetune(model, inputs, train, recipe, seed=3, device=CPU, validate=validate, checkpoint=checkpoint)
    return history, model.state_dict()


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("stop_after", [0, 1, STEPS - 1])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "lora", "lora_rank": 2},
        {"val_checks": 4},
        {"mode": "frozen"},
        {
            "mode": "frozen",
            "augment": False,
        },  # what the encoder gave is remembered: STEPS batches are more than all rows
    ],
)
def test_a_stopped_finetuning_ends_with_the_bytes_it_would_have_had(pretrained, data, tmp_path, options, stop_after):
    recipe = FinetuneParameters(steps=STEPS, batch_size=16, lr=1e-2, warmup_steps=2, **options)
    history, state = run(pretrained, data, recipe)
    with pytest.raises(Stopped):
        run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one"), stop_after=stop_after)
    torch.manual_seed(99)  # another process
    again, same = run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one"), stop_after=STEPS - stop_after)
    assert again == history
    assert same.keys() == state.keys()
    assert all(torch.equal(same[name], state[name]) for name in state)
    # A finished one does no step again.
    once_more, same = run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one"), stop_after=0)
    assert once_more == history
    assert all(torch.equal(same[name], state[name]) for name in state)


@pytest.mark.usefixtures("always_due")
def test_the_checkpoint_of_another_finetuning_is_not_gone_on_with(pretrained, data, tmp_path, caplog):
    recipe = FinetuneParameters(steps=STEPS, batch_size=16)
    with pytest.raises(Stopped):
        run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one"), stop_after=5)
    with pytest.raises(Stopped), caplog.at_level(logging.INFO):
        run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "other"), stop_after=STEPS - 1)
    assert "going on" not in caplog.text
    with caplog.at_level(logging.INFO):
        run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "other"), stop_after=1)
    assert f"going on from step {STEPS - 1} of {STEPS}" in caplog.text


def test_checkpoints_are_written_from_time_to_time(pretrained, data, tmp_path, monkeypatch):
    """By the clock, so a short finetuning writes once, at its end."""
    written = []
    monkeypatch.setattr(checkpoints.Checkpoints, "save", lambda self, checkpoint: written.append(checkpoint.step))
    recipe = FinetuneParameters(steps=STEPS, batch_size=16)
    run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one"))
    assert written == [STEPS]
    written.clear()
    run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one", every_s=0))
    assert written == list(range(1, STEPS + 1))
    written.clear()
    run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path, "one", keep_last=False))
    assert not written  # its result is saved at once


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("start", starts.STARTS)
def test_a_start_goes_on_and_leaves_nothing_behind(pretrained, data, tmp_path, monkeypatch, start):
    """Also from one rate of a grid to the next."""
    recipe = {"steps": 4, "batch_size": 16, "warmup_steps": 1, "lr_grid": (1e-2, 1e-3)}
    options = TaskParameters.model_validate(
        {"task": "classify", "device": "cpu", "threads": 1, "head": "mean", "finetune": recipe}
    )
    whole = starts.finetune_start(options, data, pretrained, start)
    monkeypatch.setattr(starts, "TaskInputs", InputsThatStop)
    monkeypatch.setattr(InputsThatStop, "left", 5 + 1)  # four steps, a validation, one step of the second rate
    with pytest.raises(Stopped):
        starts.finetune_start(options, data, pretrained, start, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["rate-0", "rate-1"]
    monkeypatch.setattr(InputsThatStop, "left", 1 + 3 + 2)  # a validation, three steps, a validation, calibration
    found = starts.finetune_start(options, data, pretrained, start, tmp_path / "run")
    assert not any((tmp_path / "run").iterdir())
    assert found.recipe == whole.recipe
    assert found.finetuned.history == whole.finetuned.history
    state = whole.finetuned.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.finetuned.model.state_dict().items())


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize("begun", ["32-true", "bf16-mixed"])
def test_a_stopped_start_goes_on_in_the_precision_that_it_was_begun_in(pretrained, data, tmp_path, monkeypatch, begun):
    """`auto` would choose the other one by now: the machine is another, or was busy when it was asked."""
    recipe = {"steps": 4, "batch_size": 16, "warmup_steps": 1}
    group = {"task": "classify", "device": "cpu", "threads": 1, "head": "mean", "finetune": recipe}
    options = TaskParameters.model_validate(group)
    assert options.finetune.precision == "auto"
    stated = TaskParameters.model_validate({**group, "finetune": {**recipe, "precision": begun}})
    whole = starts.finetune_start(stated, data, pretrained, "pretrained")
    other = "bf16-mixed" if begun == "32-true" else "32-true"
    monkeypatch.setattr(precision, "_decided", lambda device_type: begun)
    monkeypatch.setattr(starts, "TaskInputs", InputsThatStop)
    monkeypatch.setattr(InputsThatStop, "left", 2)
    with pytest.raises(Stopped):
        starts.finetune_start(options, data, pretrained, "pretrained", tmp_path)
    monkeypatch.setattr(InputsThatStop, "left", -1)
    monkeypatch.setattr(precision, "_decided", lambda device_type: other)
    assert precision.precision_of("auto", torch.device("cpu")) == other
    found = starts.finetune_start(options, data, pretrained, "pretrained", tmp_path)
    assert found.recipe["precision"] == begun == whole.recipe["precision"]
    assert found.finetuned.history == whole.finetuned.history
    state = whole.finetuned.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.finetuned.model.state_dict().items())


@pytest.mark.usefixtures("always_due")
def test_other_code_begins_again(pretrained, data, tmp_path, monkeypatch, caplog):
    recipe = {"steps": 4, "batch_size": 16, "warmup_steps": 1}
    options = TaskParameters.model_validate({"task": "classify", "device": "cpu", "head": "mean", "finetune": recipe})
    monkeypatch.setattr(starts, "TaskInputs", InputsThatStop)

    def stopped_after(steps):
        caplog.clear()
        monkeypatch.setattr(InputsThatStop, "left", steps)
        with pytest.raises(Stopped), caplog.at_level(logging.INFO):
            starts.finetune_start(options, data, pretrained, "pretrained", tmp_path)
        return caplog.text

    assert "going on" not in stopped_after(2)
    assert "going on from step 2 of 4" in stopped_after(1)
    monkeypatch.setattr(starts, "training_code", lambda: "of another day")
    assert "going on" not in stopped_after(1)


def test_a_full_disk_is_said(pretrained, data, tmp_path):
    (tmp_path / "file").write_text("no folder")
    recipe = FinetuneParameters(steps=2, batch_size=16)
    with pytest.raises(CheckpointWriteError, match=r"cannot write the checkpoint of step 2 .*Make room there"):
        run(pretrained, data, recipe, FinetuneCheckpoint(tmp_path / "file", "one"))


def test_batches_are_as_many_as_the_recipe_says(pretrained, data):
    with pytest.raises(Stopped):
        run(pretrained, data, FinetuneParameters(steps=3, batch_size=16), stop_after=2)
    history, _ = run(pretrained, data, FinetuneParameters(steps=3, batch_size=16), stop_after=3)
    assert [moment.step for moment in history] == [1, 2, 3]
    assert np.isfinite([moment.loss for moment in history]).all()
