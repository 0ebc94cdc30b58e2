"""Tasks from encoders that this run did not pretrain: every task, head and mode on networks of timm, saved and read."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from a2mae.errors import InputError
from a2mae.files import file_digest
from a2mae.models.checkpoint import CheckpointError, load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.models.sources import weights_digest
from a2mae.models.timm_encoder import TimmConfig, TimmEncoder
from a2mae.sensors import Encoding, Units
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.both_starts import score_both
from a2mae.tasks.finetune.encoders import check_start, load_start, random_init
from a2mae.tasks.finetune.finetuned import finetune_start, load_task_model, save_task_model
from a2mae.tasks.finetune.lora import add_lora, merge_lora
from a2mae.tasks.finetune.model import HeadConfig, TaskModel
from a2mae.tasks.finetune.train import head_for, predict
from a2mae.tasks.parameters import EncoderParameters, TaskParameters
from a2mae.tasks.registry import Task
from helpers.task_models import CPU
from helpers.task_samples import SENTINEL2, make_samples, spec_for

RGB = ("red", "green", "blue")
NETWORKS = ("test_vit", "test_resnet", "test_convnext")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of small networks of timm, made at random."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name in NETWORKS:
        save_file(timm.create_model(name, num_classes=7).state_dict(), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in NETWORKS}


def options(task: Task, files, network: str, **changes) -> TaskParameters:
    recipe = {"steps": 4, "batch_size": 4, "warmup_steps": 1, **changes.pop("finetune", {})}
    start = {"model": network, "weights": files[network], "licence": "CC-BY-4.0", **changes.pop("start", {})}
    given = {"task": task, "device": "cpu", "threads": 1, "head": task.kind.heads[0], "bootstrap": 100, "pictures": 1}
    return TaskParameters.model_validate({**given, "start": start, "finetune": recipe, **changes})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("task", "head"), [(task, head) for task in Task for head in task.kind.heads])
def test_every_head_gives_logits_of_the_targets_shape_and_gradients_everywhere(files, data, task, head, network):
    start = EncoderParameters(model=network, weights=files[network])
    loaded = load_start(start, data[task], RGB)
    inputs = TaskInputs(data[task], loaded.plan)
    fusion = "attention" if head == "conv" else "difference_concat"
    options = TaskParameters.model_validate({"task": task.value, "head": head, "fusion": fusion})
    model = TaskModel(loaded.encoder, head_for(data[task], loaded.plan, options, head))
    batch = inputs.batch(np.arange(4))
    outputs = model(batch)
    pixels = batch.images.shape[-2:] if task.kind.answers_pixels(head) else ()
    classes = model.config.classes
    logits = 2 * classes + 2 if task.kind.transitions else classes  # two dates' and whether it changed
    assert outputs.shape == (4, logits, *pixels) and outputs.isfinite().all()
    outputs.square().mean().backward()
    last = "encoder.network.norm", "encoder.network.fc_norm", "encoder.network.head"
    silent = [name for name, p in model.named_parameters() if p.grad is None and not name.startswith(last)]
    assert silent == []


@pytest.mark.parametrize("case", [
    (Task.CLASSIFY, "test_vit", "lora"),
    (Task.SEGMENT, "test_resnet", "frozen"),
    (Task.SEGMENT, "test_vit", "full"),
    (Task.DETECT_CHANGE, "test_convnext", "full"),
])  # fmt: skip
def test_a_task_starts_from_a_file_and_its_random_twin_and_is_saved_with_what_it_started_from(
    files, data, tmp_path, case
):
    task, network, mode = case
    asked = options(task, files, network, finetune={"mode": mode})
    models = {}
    for start in ("pretrained", "random"):
        save_task_model(tmp_path / start, finetune_start(asked, data[task], None, start))
        models[start] = load_task_model(tmp_path / start)
    rows = data[task].rows("test")
    for start, found in models.items():
        run = finetune_start(asked, data[task], None, start)
        found.model.on(CPU, run.finetuned.model.precision)
        before, after = (
            predict(model, TaskInputs(data[task], found.plan), rows, batch_size=8, device=CPU)
            for model in (run.finetuned.model, found.model)
        )
        np.testing.assert_array_equal(before, after)
        assert found.plan.normalised_by == ("data",)
    config = json.loads((tmp_path / "pretrained" / "config.json").read_text())
    assert config["model"] == f"timm/{network}" and str(tmp_path) not in json.dumps(config)
    origin = config["task"]["origin"]
    assert origin["weights"] == f"{network}.safetensors" and origin["sha256"] == file_digest(
        tmp_path.parent.parent.joinpath(files[network])
    )
    assert origin["licence"] == "CC-BY-4.0" and origin["kind"] == f"timm's {network}"
    assert {"part": "first layer", "verdict": "taken", "detail": "3 bands"} in origin["parts"]
    result = score_both(asked, data[task], models)
    assert result.metrics["start"] == {key: origin[key] for key in ("weights", "kind", "sha256", "licence")}
    state = {start: found.model.encoder.network.state_dict() for start, found in models.items()}
    assert not all(torch.equal(value, state["random"][name]) for name, value in state["pretrained"].items())
    if mode == "frozen":  # the statistics of BatchNorm, too
        before = load_start(asked.start, data[task], RGB).encoder.network.state_dict()
        assert any(name.endswith("running_mean") for name in before)
        assert all(torch.equal(value, state["pretrained"][name]) for name, value in before.items())
    with pytest.raises(CheckpointError, match=rf"timm/{network}: a finetuned model is read by load_task_model"):
        load_encoder(tmp_path / "pretrained")


def test_the_twin_has_timms_own_first_weights_by_the_seed(files, data):
    loaded = load_start(EncoderParameters(model="test_resnet", weights=files["test_resnet"]), data[Task.SEGMENT], RGB)
    one, again, other = (random_init(loaded.encoder, seed).state_dict() for seed in (3, 3, 4))
    torch.manual_seed(3)
    plain = TimmEncoder(loaded.encoder.config).state_dict()
    assert all(torch.equal(one[name], value) and torch.equal(again[name], value) for name, value in plain.items())
    assert not all(torch.equal(one[name], value) for name, value in other.items())
    assert not one["network.bn1.running_mean"].any(), "statistics are learned: the twin has none"


def test_the_rcf_head_takes_patches_that_samples_are_no_multiples_of(data, tmp_path):
    """DINOv2's of 14 pixels on samples of 32: the encoder is fed 42, and so are the head's features."""
    torch.manual_seed(0)
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_small_patch14_dinov2", **small)
    save_file(model.state_dict(), tmp_path / "dino.safetensors")
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, **options: create(name, **{**small, **options}))
        asked = options(
            Task.SEGMENT, {"vit_small_patch14_dinov2": str(tmp_path / "dino.safetensors")}, "vit_small_patch14_dinov2",
            head="rcf",
        )  # fmt: skip
        found = finetune_start(asked, data[Task.SEGMENT], None, "pretrained").finetuned
    assert found.model.encoder.config.scale == 42 / 32
    inputs = TaskInputs(data[Task.SEGMENT], found.plan)
    prediction = predict(found.model, inputs, data[Task.SEGMENT].rows("test"), batch_size=8, device=CPU)
    assert prediction.shape[1:] == (32, 32)
    assert found.model.head.rcf.num_features and all(
        value.isfinite().all() for value in found.model.state_dict().values()
    )


def test_lora_updates_attention_where_there_is_some():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    for name in ("test_vit", "swinv2_tiny_window8_256"):  # v2 computes with its layer's weight and bias
        encoder = TimmEncoder(TimmConfig(model=name)).eval()
        with torch.no_grad():  # v2's norms after attention begin at zero
            for parameter in encoder.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        plain, names = encoder.forward_features(images), set(encoder.state_dict())
        add_lora(encoder, 2)
        torch.testing.assert_close(encoder.forward_features(images), plain)  # an update starts at zero
        trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(0.1 * torch.randn_like(parameter))
        updated = encoder.forward_features(images)
        updated.sum().backward()
        assert all(parameter.grad is not None for parameter in trained) and not torch.allclose(updated, plain)
        merge_lora(encoder)
        assert set(encoder.state_dict()) == names
        torch.testing.assert_close(encoder.forward_features(images), updated, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="lora updates attention, and this encoder has none: take full or frozen"):
        add_lora(TimmEncoder(TimmConfig(model="test_resnet")), 2)


def test_a_layer_nearer_to_the_input_learns_slower(files, data):
    """timm's own groups by depth, for each of its families."""
    from timm.optim._param_groups import param_groups_layer_decay

    for network in NETWORKS:
        start = EncoderParameters(model=network, weights=files[network])
        loaded = load_start(start, data[Task.SEGMENT], RGB)
        model = TaskModel(loaded.encoder, HeadConfig(Task.SEGMENT, "conv", 3))
        scale = {}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for group in param_groups_layer_decay(model, layer_decay=0.5):
            scale |= {names[id(parameter)]: group["lr_scale"] for parameter in group["params"]}
        first = [name for name in scale if scale[name] == min(scale.values())]
        assert all(re.search(r"patch_embed|cls_token|pos_embed|reg_token|conv1|stem|bn1", name) for name in first)
        assert all(scale[name] == 1 for name in scale if name.startswith("head."))
        assert len({scale[name] for name in scale if name.startswith("encoder.network")}) > 3, network


def test_any_bands_are_read_at_once_and_normalised_as_stated(files, data, tmp_path):
    six = (*RGB, *RGB)
    start = EncoderParameters(model="test_vit", weights=files["test_vit"])
    loaded = load_start(start, data[Task.SEGMENT], six)
    assert loaded.plan.views == 1 and loaded.plan.bands_per_view == 6
    assert any("bands by nearest wavelength" in part["detail"] for part in loaded.origin["parts"])
    stated = start.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)})
    plan = load_start(stated, data[Task.SEGMENT], RGB).plan
    assert plan.mean == ((0.1, 0.2, 0.3),) and plan.std == ((1.0, 2.0, 3.0),) and plan.normalised_by == ("model",)
    with pytest.raises(TaskDataError, match="segment: 2 bands need as many means and deviations, found 3"):
        load_start(stated, data[Task.SEGMENT], ("red", "green"))
    of_timm = start.model_copy(update={"normalisation": "timm"})
    with pytest.raises(TaskDataError, match=r"normalisation timm is of 8-bit pictures from 0 to 1, and 'test' holds"):
        load_start(of_timm, data[Task.SEGMENT], RGB)
    spec = spec_for(Task.CLASSIFY)
    encoding = Encoding("uint8", 1 / 255, 0.0, 0, Units.DN)
    pictures = (
        sample.__class__(sample.pixels.clip(0, 255).astype(np.uint8), sample.valid, sample.target, sample.row)
        for sample in make_samples(Task.CLASSIFY, count=10, size=32)
    )
    write_task_data(tmp_path / "pictures", spec.__class__(**{**vars(spec), "encoding": encoding}), pictures)
    plan = load_start(of_timm, TaskData(tmp_path / "pictures"), ("blue", "green", "red")).plan
    assert plan.mean == ((0.5, 0.5, 0.5),) and plan.normalised_by == ("model",)


def test_another_model_directory_is_a_start_and_an_imported_one_is_normalised_by_the_data(data, pretrained, tmp_path):
    loaded = load_start(EncoderParameters(weights=str(pretrained)), data[Task.SEGMENT], RGB)
    assert loaded.plan.normalised_by == ("model",) and loaded.origin["sha256"] == weights_digest(pretrained)
    model = create_model("mae_vit_tiny_patch8", embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1)
    imported = save_pretrained(model, tmp_path / "imported", config={"method": "mae"})  # as `a2mae weights import`
    start = EncoderParameters(weights=str(imported), licence="MIT")
    assert load_start(start, data[Task.SEGMENT], RGB).plan.normalised_by == ("data",)
    asked = TaskParameters.model_validate(
        {"task": "segment", "device": "cpu", "head": "linear", "start": {"weights": str(imported), "licence": "MIT"},
         "finetune": {"steps": 2, "batch_size": 4}}
    )  # fmt: skip
    save_task_model(tmp_path / "task", finetune_start(asked, data[Task.SEGMENT], None, "pretrained"))
    found = load_task_model(tmp_path / "task")
    assert found.origin["licence"] == "MIT" and found.origin["kind"] == "model directory of a2mae, mae_vit_tiny_patch8"
    assert found.plan.sensors == (SENTINEL2.id,)


def test_what_cannot_be_a_start_is_said_before_there_is_data(files, pretrained, tmp_path):
    problems: list[str] = []
    for start, bands in (
        (EncoderParameters(model="test_vit", weights=files["test_vit"]), RGB),
        (EncoderParameters(model="test_vit", weights=files["test_resnet"]), RGB),
        (EncoderParameters(weights=str(pretrained)), ("red", "nir", "green", "blue")),
        (EncoderParameters(weights=files["test_vit"]), RGB),
    ):
        check_start(start, bands, "segment", problems)
    assert len(problems) == 3
    assert problems[0].startswith("segment.start: ") and "does not fit timm's test_vit: missing" in problems[0]
    assert "segment: the encoder takes 3 bands at a time; found 4 (red, nir, green, blue)" in problems[1]
    assert "is no model directory" in problems[2] and "start.model" in problems[2]
    for given, message in (
        ({"model": "x"}, "weights"),
        ({"weights": None}, "weights must name a model directory, or a file of weights for `model`"),
        ({"weights": "x", "size_px": 64}, "size_px is of a network of timm"),
        ({"weights": "x", "model": "x", "size_px": 4}, "size_px must lie between 8 and 4096 pixels, found 4"),
        (
            {"weights": "x", "model": "x", "mean": [1.0]},
            "mean and std must be equally many, one per band, found 1 and 0",
        ),
        ({"weights": "x", "model": "x", "mean": [1.0], "std": [1.0], "normalisation": "timm"}, "not both"),
    ):
        with pytest.raises(ValueError, match=message):
            EncoderParameters.model_validate(given)
    with pytest.raises(ValueError, match="location: true is read by encoders of this project, and test_vit is timm's"):
        TaskParameters.model_validate(
            {"task": "segment", "location": True, "start": {"weights": "x", "model": "test_vit"}}
        )
