"""Finetuned models: what they have learned, saved and read back; chosen on validation, from either start."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch

from a2mae.config import read_back
from a2mae.errors import InputError
from a2mae.models.checkpoint import load_encoder, read_config, save_pretrained
from a2mae.models.registry import create_model
from a2mae.models.released import CheckpointError
from a2mae.tasks.datasets.inputs import InputPlan, TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.finetuned import (
    STARTS,
    Finetuned,
    FinetuneRun,
    finetune_start,
    load_task_model,
    random_init,
    save_task_model,
)
from a2mae.tasks.finetune.train import finetune, predict
from a2mae.tasks.metrics.scores import main_score
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from a2mae.tasks.registry import Task
from helpers.task_models import CPU, LEARNED, build
from helpers.task_samples import SENTINEL2, make_samples, spec_for


@pytest.mark.parametrize("task", list(Task))
def test_finetuning_learns_each_task_and_the_saved_model_says_the_same(pretrained, data, tmp_path, task):
    head, wanted = LEARNED[task]
    model, inputs, plan = build(pretrained, data, task, head)
    recipe = FinetuneParameters(steps=60, batch_size=16, lr=3e-3, warmup_steps=5)
    history = finetune(model, inputs, data[task].rows("train"), recipe, seed=0, device=CPU)
    assert history[-1].loss < 0.5 * history[0].loss
    test = data[task].rows("test")
    prediction = predict(model, inputs, test, batch_size=8, device=CPU)
    assert main_score(data[task], test, prediction) > wanted

    run = FinetuneRun(
        Finetuned(model, plan, data[task].spec, tuple(history)),
        read_config(pretrained),
        "pretrained",
        recipe.model_dump(),
    )
    save_task_model(tmp_path / "model", run)
    again = load_task_model(tmp_path / "model")
    assert (again.plan, again.spec, again.history) == (plan, data[task].spec, history)
    again.model.on(CPU, model.precision)
    same = predict(again.model, TaskInputs(data[task], again.plan), test, batch_size=8, device=CPU)
    np.testing.assert_array_equal(same, prediction)
    # and its encoder is an encoder like any other
    finetuned = load_encoder(tmp_path / "model").state_dict()
    assert all(torch.equal(value, model.encoder.state_dict()[name]) for name, value in finetuned.items())


@pytest.mark.parametrize("task", list(Task))
def test_the_rcf_head_reads_random_convolution_features_of_training_images(pretrained, data, tmp_path, task):
    """They are drawn once, from training images of all bands, the same for both starts, and go with the saved model."""
    recipe = {"steps": 20, "batch_size": 8, "warmup_steps": 2, "head_lr_scale": 10.0}
    options = TaskParameters.model_validate({"task": task, "device": "cpu", "head": "rcf", "finetune": recipe})
    starts = {start: finetune_start(options, data[task], pretrained, start) for start in STARTS}
    heads = [run.finetuned.model.head for run in starts.values()]
    assert all(head.rcf.fitted and not list(head.rcf.parameters()) for head in heads)
    assert torch.equal(heads[0].rcf.filters, heads[1].rcf.filters)
    save_task_model(tmp_path / "model", starts["pretrained"])
    again = load_task_model(tmp_path / "model").model
    assert torch.equal(again.head.rcf.filters, heads[0].rcf.filters)
    # an encoder that sees nothing leaves the features: they alone tell the classes apart
    batch = TaskInputs(data[task], starts["pretrained"].finetuned.plan).batch(data[task].rows("test"))
    with torch.no_grad():
        for parameter in again.encoder.parameters():
            parameter.zero_()
        logits = again(batch).flatten(2) if task.kind.per_pixel else again(batch)
    assert logits.std(dim=0).mean() > 0.1


def test_random_init_has_the_architecture_and_other_weights(pretrained):
    encoder = load_encoder(pretrained)
    state = torch.random.get_rng_state()
    baseline, again, other = random_init(encoder, 3), random_init(encoder, 3), random_init(encoder, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert baseline.config == encoder.config
    weight = "blocks.0.attn.qkv.weight"
    assert torch.equal(baseline.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(baseline.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(baseline.state_dict()[weight], encoder.state_dict()[weight])


def test_a_pretrained_directory_is_no_task_model(pretrained):
    with pytest.raises(CheckpointError, match="finetune it first"):
        load_task_model(pretrained)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"classes": 10**12}, "classes must be a whole number from 1 to 1,000, found '1000000000000'"),
        ({"views": 10**6}, "views must be a whole number from 1 to 1,000"),
        ({"images": True}, "'images': Input should be a valid integer, found bool True"),
        ({"bands_per_view": -3}, "bands_per_view must be a whole number"),
        ({"head": "unknown"}, "head must be one of"),
        ({"task": "fly"}, "'task': Input should be 'classify', .*found str 'fly'"),
        ({"other": 1}, "'other' is unknown; there are task, head"),
        ({"temperature": -1.0}, "temperature must be 0.001 to 1,000"),
        ({"temperature": "x"}, "'temperature': .*found str 'x'"),
        ({"thresholds": [2.0]}, "thresholds from 0 to 1"),
        ({"classes": 500}, r"the head is of classify, 500 classes and 1 views of 3 bands, and its data and inputs of"),
    ],
)
def test_a_head_that_is_none_is_refused_before_memory_is_taken(saved, tmp_path, changes, told):
    directory = shutil.copytree(saved, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    config["task"]["head"] |= changes
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=told):
        load_task_model(directory)


@pytest.fixture(scope="module")
def saved(pretrained, data, tmp_path_factory):
    """A finetuned model's directory."""
    recipe = {"steps": 1, "batch_size": 4, "warmup_steps": 0}
    options = TaskParameters.model_validate({"task": "classify", "device": "cpu", "head": "mean", "finetune": recipe})
    directory = tmp_path_factory.mktemp("saved") / "model"
    save_task_model(directory, finetune_start(options, data[Task.CLASSIFY], pretrained, "pretrained"))
    return directory


def test_law_whatever_stands_in_a_models_files_it_is_read_or_refused(saved, tmp_path):
    directory = shutil.copytree(saved, tmp_path / "model")
    values = [None, [], "x", -1, 1e308, True, [["x"]], [[1e308] * 3], [1, 2, 3]]
    whole = {name: json.loads((saved / name).read_text()) for name in ("config.json", "metrics.json")}
    assert load_task_model(directory).origin is None
    read = set()

    def tried(name, content, change):
        (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))
        try:
            load_task_model(directory)
            read.add(change)
        except CheckpointError as error:
            assert str(directory) in str(error), change
        (directory / name).write_text(json.dumps(whole[name]))

    for place in [("task",), *((("task"), key) for key in ("head", "inputs", "data", "origin"))]:
        for key in [None, *(_at(whole["config.json"], place) or {})]:
            for value in ["gone", *values]:
                document = copy.deepcopy(whole["config.json"])
                within = _at(document, place if key else place[:-1])
                within[key or place[-1]] = value
                if value == "gone":
                    del within[key or place[-1]]
                tried("config.json", document, (*place, key, str(value)))
    for content in (
        "",
        "[",
        "[]",
        "{}",
        '{"history": 1}',
        '{"history": [1]}',
        '{"history": [{"step": 1, "loss": NaN}]}',
    ):
        tried("metrics.json", content, content)
    assert not read & {("task", "head", "temperature", str(value)) for value in values[1:5]}
    assert not read & {("task", "inputs", "std", str(value)) for value in values}
    assert not read & {("task", "data", "gsd_m", str(value)) for value in values}
    assert not read & {("task", "data", "class_names", str(value)) for value in values}
    assert ("task", "data", "source", "x") in read, "what may be anything is read"
    (directory / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.json is missing"):
        load_task_model(directory)


def _at(document, place):
    for key in place:
        document = document[key]
    return document


@pytest.mark.parametrize(
    ("mean", "std", "refused"),
    [(0.5, 1e-30, True), (1e308, 1.0, True), (0.1, -0.1, True), (0.1, 1e-6, False), (-20.0, 3.0, False)],
)
def test_statistics_by_which_no_pixel_can_be_normalised_are_refused(mean, std, refused):
    plan = {"bands": ["red"], "bands_per_view": 3, "center_wavelength_nm": [665.0], "sensors": ["s"]}
    plan |= {"mean": [[mean]], "std": [[std]], "normalised_by": ["model"]}
    if not refused:
        assert read_back(InputPlan, plan, "inputs").std == ((std,),)
        return
    with pytest.raises(InputError, match="are of no pixels"):
        read_back(InputPlan, plan, "inputs")
    with pytest.raises(InputError, match="every std of a sensor is 0"):
        read_back(InputPlan, plan | {"mean": [[0.1]], "std": [[0.0]]}, "inputs")


def test_the_rate_and_the_state_are_chosen_on_validation(tmp_path, monkeypatch):
    """A rate that teaches nothing is tried first and not kept; of the kept one, the best state seen is what is left."""
    from a2mae.tasks.finetune import finetuned as starts

    write_task_data(tmp_path / "data", spec_for(Task.CLASSIFY), make_samples(Task.CLASSIFY, count=60, size=16))
    data = TaskData(tmp_path / "data")
    torch.manual_seed(0)
    made = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=1, decoder_dim=32, decoder_depth=1)
    statistics = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
    pretrained = save_pretrained(made, tmp_path / "model", config={"normalization": statistics})
    recipe = {"steps": 30, "batch_size": 16, "warmup_steps": 2, "lr_grid": (1e-9, 1e-2), "val_checks": 5}
    options = TaskParameters.model_validate({"task": "classify", "device": "cpu", "head": "mean", "finetune": recipe})
    asked = []

    def spied(data, rows, prediction):
        asked.append(set(data.samples["split"].to_numpy()[rows]))
        return main_score(data, rows, prediction)

    monkeypatch.setattr(starts, "main_score", spied)
    found = starts.finetune_start(options, data, pretrained, "pretrained")
    assert found.recipe["lr"] == 1e-2
    assert len(asked) == 2 * (5 + 1)
    assert all(splits == {"val"} for splits in asked)  # the test split is never looked at
    val = data.rows("val")
    prediction = predict(found.finetuned.model, TaskInputs(data, found.finetuned.plan), val, batch_size=8, device=CPU)
    assert main_score(data, val, prediction) > 0.9
    monkeypatch.setattr(TaskData, "rows", lambda self, split: val if split == "train" else val[:0])
    with pytest.raises(TaskDataError, match="need a validation split, and 'test' has none"):
        starts.finetune_start(options, data, pretrained, "pretrained")
