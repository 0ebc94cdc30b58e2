import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from a2mae.models.checkpoint import CheckpointError, load_encoder, read_config, save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import Task, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.checkpoint import (
    Finetuned,
    FinetuneRun,
    bands_per_view,
    encoder_normalisation,
    load_task_model,
    random_twin,
    save_task_model,
)
from a2mae.tasks.finetune.model import HeadConfig, Symmetry, TaskModel, head_config_from_dict
from a2mae.tasks.finetune.train import NotFiniteError, finetune, flipped, predict
from a2mae.tasks.metrics.measures import ConfusionCounts, accuracy, change_f1, mean_iou
from a2mae.tasks.parameters import FinetuneParameters, TaskParameters
from helpers.task_samples import SENTINEL2, make_samples, spec_for

CPU = torch.device("cpu")
LEARNT = {
    Task.CLASSIFY: ("mean", accuracy, 0.9),
    Task.SEGMENT: ("conv", mean_iou, 0.7),
    Task.DETECT_CHANGE: ("conv", change_f1, 0.7),
}
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A model directory as pretraining leaves it, small."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrain")
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=4, decoder_dim=32)
    save_pretrained(model, folder, config={"sensors": [SENTINEL2.id], "normalization": STATISTICS})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for task in Task:
        write_task_data(folder / task, spec_for(task), make_samples(task, count=40, size=32))
    return {task: TaskData(folder / task) for task in Task}


def build(pretrained, data, task, head, *, fusion="difference_concat", bands=("red", "green", "blue")):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data[task], bands, encoder_normalisation(pretrained), bands_per_view=bands_per_view(encoder))
    classes = len(data[task].spec.class_names)
    torch.manual_seed(1)
    model = TaskModel(encoder, HeadConfig(task, head, classes, plan.views, plan.bands_per_view, fusion))
    return model, TaskInputs(data[task], plan), plan


@pytest.mark.parametrize(("task", "head"), [(task, head) for task in Task for head in task.kind.heads])
def test_every_head_gives_logits_of_the_targets_shape_and_gradients_everywhere(pretrained, data, task, head):
    model, inputs, _ = build(pretrained, data, task, head)
    batch = inputs.batch(np.arange(4))
    logits = model(batch)
    assert logits.shape == (4, model.config.classes, *batch.targets.shape[1:])
    torch.nn.functional.cross_entropy(logits, batch.targets).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None and "encoder.norm" not in name]
    assert silent == []


@pytest.mark.parametrize(("task", "head"), [(task, head) for task in Task for head in task.kind.heads])
def test_every_head_can_be_asked_for(task, head):
    assert TaskParameters.model_validate({"task": str(task), "head": head}).head == head


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.DETECT_CHANGE])
def test_the_detail_head_tells_pixels_of_one_patch_apart(pretrained, data, task):
    torch.manual_seed(0)
    model, inputs, _ = build(pretrained, data, task, "detail")
    model.eval()
    batch = inputs.batch(np.arange(1))
    images = batch.images.clone()
    images[:, -1, :, 8, 8] += 1  # the corner of a patch
    effect = (model(dataclasses.replace(batch, images=images)) - model(batch)).abs().sum(1)[0]
    patch = model.encoder.patch_size
    assert effect[8, 8] > 2 * effect[8 + patch - 1, 8 + patch - 1]


@pytest.mark.parametrize("fusion", ["difference", "concat", "difference_concat", "attention"])
def test_every_fusion_sees_both_dates(pretrained, data, fusion):
    model, inputs, _ = build(pretrained, data, Task.DETECT_CHANGE, "conv", fusion=fusion)
    model.eval()
    batch = inputs.batch(np.arange(2))
    base = model(batch)
    for time in (0, 1):
        images = batch.images.clone()
        images[:, time, :, :8, :8] += 1
        assert (model(dataclasses.replace(batch, images=images)) - base).abs().max() > 1e-4


@pytest.mark.parametrize("task", list(Task))
def test_finetuning_learns_each_task_and_the_saved_model_says_the_same(pretrained, data, tmp_path, task):
    head, metric, wanted = LEARNT[task]
    model, inputs, plan = build(pretrained, data, task, head)
    recipe = FinetuneParameters(steps=60, batch_size=16, lr=3e-3, warmup_steps=5)
    history = finetune(model, inputs, data[task].rows("train"), recipe, seed=0, device=CPU)
    assert history[-1].loss < 0.5 * history[0].loss
    test = data[task].rows("test")
    prediction = predict(model, inputs, test, batch_size=8, device=CPU)
    counts = ConfusionCounts(data[task].read_targets(test), prediction, test, model.config.classes)
    assert metric(counts.matrix) > wanted

    run = FinetuneRun(
        Finetuned(model, plan, data[task].spec, tuple(history)),
        read_config(pretrained),
        "pretrained",
        recipe.model_dump(),
    )
    save_task_model(tmp_path / "model", run)
    again = load_task_model(tmp_path / "model")
    assert (again.plan, again.spec, again.history) == (plan, data[task].spec, history)
    same = predict(again.model, TaskInputs(data[task], again.plan), test, batch_size=8, device=CPU)
    np.testing.assert_array_equal(same, prediction)
    # and its encoder is an encoder like any other
    finetuned = load_encoder(tmp_path / "model").state_dict()
    assert all(torch.equal(value, model.encoder.state_dict()[name]) for name, value in finetuned.items())


def test_same_seed_same_weights(pretrained, data):
    runs = []
    for _ in range(2):
        model, inputs, _ = build(pretrained, data, Task.SEGMENT, "linear")
        finetune(model, inputs, data[Task.SEGMENT].rows("train"), FinetuneParameters(steps=3), seed=5, device=CPU)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("task", list(Task))
def test_half_precision_learns_as_well_and_keeps_whole_weights(pretrained, data, task):
    head, _, _ = LEARNT[task]
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        model, inputs, _ = build(pretrained, data, task, head)
        recipe = FinetuneParameters(steps=20, batch_size=16, lr=3e-3, warmup_steps=5, precision=precision)
        history = finetune(model, inputs, data[task].rows("train"), recipe, seed=0, device=CPU)
        losses[precision] = np.array([moment.loss for moment in history])
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    whole, half = losses.values()
    assert not np.array_equal(whole, half), "the option changed nothing"
    np.testing.assert_allclose(half, whole, atol=0.1 * whole[0])


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_modes_change_what_they_may(pretrained, data, mode):
    model, inputs, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    recipe = FinetuneParameters(steps=4, mode=mode, lora_rank=2, lr=1e-2)
    finetune(model, inputs, data[Task.CLASSIFY].rows("train"), recipe, seed=0, device=CPU)
    after = model.encoder.state_dict()
    assert after.keys() == before.keys()  # LoRA is merged: the architecture is plain again
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if mode == "frozen":
        assert changed == set()
    else:
        assert changed == {f"blocks.{i}.attn.{layer}.weight" for i in range(4) for layer in ("qkv", "proj")}
        delta = after["blocks.0.attn.qkv.weight"] - before["blocks.0.attn.qkv.weight"]
        assert torch.linalg.matrix_rank(delta.double(), rtol=1e-3) <= 2


def test_learning_rate_falls_towards_the_input(pretrained, data):
    from timm.optim._param_groups import param_groups_layer_decay

    model, _, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    named = {name: scale[id(p)] for name, p in model.named_parameters()}
    blocks = [named[f"encoder.blocks.{i}.attn.qkv.weight"] for i in range(4)]
    ladder = [
        named["encoder.patch_embed.proj.weight"],
        *blocks,
        named["encoder.norm.weight"],
        named["head.linear.weight"],
    ]
    assert ladder[-1] == 1.0
    assert all(b >= 2 * a for a, b in itertools.pairwise(ladder[:5]))
    assert ladder[4] == ladder[5] == 0.5


def test_random_twin_has_the_architecture_and_other_weights(pretrained):
    encoder = load_encoder(pretrained)
    state = torch.random.get_rng_state()
    twin, again, other = random_twin(encoder, 3), random_twin(encoder, 3), random_twin(encoder, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert twin.config == encoder.config
    weight = "blocks.0.attn.qkv.weight"
    assert torch.equal(twin.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(twin.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(twin.state_dict()[weight], encoder.state_dict()[weight])


def test_inputs_are_normalised_as_the_encoder_was_taught(pretrained, data):
    _, inputs, plan = build(pretrained, data, Task.SEGMENT, "linear")
    assert plan.normalised_by == ("model",)
    batch = inputs.batch(np.array([3]))
    physical = data[Task.SEGMENT].read(np.array([3])).images
    np.testing.assert_allclose(batch.images.numpy(), (physical - 0.05) / 0.03, atol=1e-5)
    assert batch.gsd_m.tolist() == [10.0]
    assert batch.lonlat_deg is None  # unless it is asked for
    told = TaskInputs(data[Task.SEGMENT], dataclasses.replace(plan, location=True)).batch(np.array([3]))
    assert told.lonlat_deg.tolist() == [[11.0, 47.0]]


def test_an_unknown_sensor_is_normalised_by_its_training_split(data):
    plan = plan_inputs(data[Task.DETECT_CHANGE], ("red", "green", "blue"), {}, bands_per_view=3)
    assert plan.normalised_by == ("data",)
    train = data[Task.DETECT_CHANGE].read(data[Task.DETECT_CHANGE].rows("train")).images.astype(np.float64)
    np.testing.assert_allclose(plan.mean[0], train.mean((0, 1, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(plan.std[0], train.std((0, 1, 3, 4)), rtol=1e-4)


def test_lazy_and_cached_inputs_are_equal(pretrained, data):
    _, inputs, plan = build(pretrained, data, Task.SEGMENT, "linear")
    rows = np.array([9, 2, 30])
    lazy = TaskInputs(data[Task.SEGMENT], plan, cache_mb=0).batch(rows)
    assert torch.equal(lazy.images, inputs.batch(rows).images)
    assert torch.equal(lazy.targets, inputs.batch(rows).targets)


def test_bands_that_do_not_fit_are_refused(pretrained, data):
    with pytest.raises(TaskDataError, match=r"3 bands at a time; found 2 \(red, green\).*'segment\.bands'"):
        build(pretrained, data, Task.SEGMENT, "linear", bands=("red", "green"))
    with pytest.raises(TaskDataError, match=r"pretrained on 'sentinel-2-l2a' without band 'B02'"):
        plan_inputs(
            data[Task.SEGMENT],
            ("red", "green", "blue"),
            {SENTINEL2.id: {"B03": [0, 1], "B04": [0, 1]}},
            bands_per_view=3,
        )


def test_messages_about_inputs_name_the_parameters_that_ask(data, caplog):
    known = {SENTINEL2.id: {"B03": [0, 1], "B04": [0, 1]}}
    for group, name in (("", "segment"), ("evaluate", "evaluate")):
        for bands, key in (
            (("red", "green"), f"'{name}.bands'"),
            (("red", "green", "nir"), f"set {name}.bands"),
            (("red", "green", "blue"), f"Choose other bands in {name}.bands"),
        ):
            with pytest.raises(TaskDataError, match=key):
                plan_inputs(data[Task.SEGMENT], bands, known, bands_per_view=3, group=group)
    with caplog.at_level("INFO"):
        plan_inputs(data[Task.SEGMENT], ("red", "green", "blue"), {"naip": {}}, bands_per_view=3, group="evaluate")
    assert "evaluate: sentinel-2-l2a is new to the encoder, 'test' is normalised by its training split" in caplog.text
    assert "(the encoder knows naip)" in caplog.text


def test_two_views_join_their_features(pretrained, data):
    model, inputs, plan = build(pretrained, data, Task.SEGMENT, "linear", bands=("red", "green", "blue") * 2)
    assert plan.views == 2
    assert model(inputs.batch(np.arange(2))).shape == (2, 3, 32, 32)


def test_flips_move_image_and_target_together(pretrained, data):
    _, inputs, _ = build(pretrained, data, Task.SEGMENT, "linear")
    batch = inputs.batch(np.arange(2))
    tagged = dataclasses.replace(batch, images=batch.targets[:, None, None].float())
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(64):
        moved = flipped(tagged, Symmetry(int(rng.integers(4)), bool(rng.integers(2))), pixels=True)
        assert torch.equal(moved.images[:, 0, 0].long(), moved.targets)
        seen.add(tuple(moved.targets[0].flatten().tolist()))
    assert len(seen) == 8
    tall = dataclasses.replace(batch, images=batch.images[..., :16], targets=batch.targets[..., :16])
    every = [Symmetry(turns, mirror) for turns in range(4) for mirror in (False, True)]
    assert {flipped(tall, symmetry, pixels=True).images.shape for symmetry in every} == {tall.images.shape}


@pytest.mark.parametrize("task", Task)
def test_symmetric_answers_move_with_the_image(pretrained, data, task):
    """A turned image gets the turned answer, which one look does not give; in training one look is taken."""
    plain, inputs, _ = build(pretrained, data, task, "mean" if task is Task.CLASSIFY else "conv")
    model = TaskModel(plain.encoder, dataclasses.replace(plain.config, symmetric=True)).eval()
    model.load_state_dict(plain.state_dict())
    batch = inputs.batch(np.arange(3))
    turned = Symmetry(1, mirror=False)
    moved = dataclasses.replace(batch, images=turned.move(batch.images))

    def moves_along(asked):
        answer = asked(batch)
        return float((asked(moved) - (answer if task is Task.CLASSIFY else turned.move(answer))).abs().max())

    looks = []
    model.head.register_forward_hook(lambda *_: looks.append(1))
    with torch.no_grad():
        assert moves_along(model) < 0.01 * moves_along(plain.eval())
        looks.clear()
        model.train()(batch)
    assert len(looks) == 1
    assert head_config_from_dict(json.loads(json.dumps(model.config.to_dict()))) == model.config


def test_a_loss_that_leaves_the_numbers_names_the_samples(pretrained, data):
    model, inputs, _ = build(pretrained, data, Task.CLASSIFY, "mean")
    with torch.no_grad():
        model.head.linear.bias.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=r"loss is nan at step 1, samples place-0"):
        finetune(model, inputs, data[Task.CLASSIFY].rows("train"), FinetuneParameters(steps=2), seed=0, device=CPU)


def test_a_pretrained_directory_is_no_task_model(pretrained):
    with pytest.raises(CheckpointError, match="finetune it first"):
        load_task_model(pretrained)


def test_heads_of_another_task_are_refused():
    with pytest.raises(
        ValueError, match="segment: head must be one of linear, conv, upernet, detail, found 'attentive'"
    ):
        HeadConfig(Task.SEGMENT, "attentive", 3)


def test_the_rate_and_the_state_are_chosen_on_validation(tmp_path, monkeypatch):
    """A rate that destroys is tried first and not kept; of the kept one, the best state seen is what is left."""
    from a2mae.tasks.finetune import checkpoint as starts
    from a2mae.tasks.metrics.scores import main_score

    write_task_data(tmp_path / "data", spec_for(Task.CLASSIFY), make_samples(Task.CLASSIFY, count=60, size=16))
    data = TaskData(tmp_path / "data")
    torch.manual_seed(0)
    made = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=1, decoder_dim=32, decoder_depth=1)
    statistics = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
    pretrained = save_pretrained(made, tmp_path / "model", config={"normalization": statistics})
    recipe = {"steps": 30, "batch_size": 16, "warmup_steps": 2, "lr_grid": (30.0, 1e-2), "val_checks": 5}
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
