"""The cards say what the run measured, in the form that model hubs read."""

import dataclasses
import json
import re

import pytest
import yaml

from a2mae.models import create_model, save_pretrained
from a2mae.pipelines.report import write_cards
from a2mae.report.cards import dataset_card, model_card
from a2mae.report.inputs import CardParameters, ReportParameters
from a2mae.report.text import position
from helpers.rasters import write_tif

SENSOR = "sentinel-2-l2a"

TEXT = CardParameters(
    model_name="my model",
    dataset_name="my sets",
    licence="cc-by-4.0",
    contact="eo@example.org",
    intended_use=("Crops | maps",),
    limits=("<b>Snow</b>",),
)


def parts(card: str) -> tuple[dict, str]:
    """Front matter and body."""
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def section(body: str, title: str) -> str:
    return body.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.fixture
def trained(inputs, model_dir):
    """A model directory with what a real one records."""
    config = {
        "method": "a2mae",
        "model": "a2mae_vit_tiny_patch8",
        "kwargs": {"embed_dim": 192, "depth": 6, "patch_size": 8},
        "bands": {"sentinel-2-l2a": ["B02", "B03", "B04"]},
        "data_manifest_hash": "5e" * 32,
        "code_commit": "c0ffee",
    }
    metrics = {"parameters": 3153216, "step": 500, "loss": 0.41, "held_out_loss": None, "effective_rank": 1.4}
    (model_dir / "config.json").write_text(json.dumps(config))
    (model_dir / "metrics.json").write_text(json.dumps(metrics))
    return dataclasses.replace(inputs, scores=inputs.scores.assign(native_gsd_m=10.0))


def test_model_card_has_front_matter_that_a_hub_reads(trained):
    front, body = parts(model_card(trained, TEXT))
    assert front["license"] == "cc-by-4.0" and front["datasets"] == ["my sets"] and front["library_name"] == "a2mae"
    results = {entry["task"]["type"]: entry["metrics"][0] for entry in front["model-index"][0]["results"]}
    assert results["image-classification"]["value"] == 0.8 and results["image-classification"]["type"] == "top1"
    assert body.lstrip().startswith("# my model\n")


def test_model_card_names_what_the_training_started_from(trained):
    assert "started from" not in model_card(trained, TEXT)
    path = trained.model_dir / "config.json"
    start = {"weights": "mae.pth", "sha256": "ab" * 32, "kind": "MAE", "licence": "CC-BY-NC-4.0"}
    for licence, said in (("CC-BY-NC-4.0", "CC-BY-NC-4.0"), (None, "not stated")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"start": start | {"licence": licence}}))
        line = f"| started from | `mae.pth` (MAE), SHA-256 `{'ab' * 32}`, licence {said} |"
        assert line in section(model_card(trained, TEXT), "Training")


def test_model_card_names_the_teacher(trained):
    path = trained.model_dir / "config.json"
    teacher = {"file": "vit.pth", "sha256": "ab" * 32, "model": "vit_large", "weight": 1.0, "width": 8, "licence": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": teacher}))
    line = f"| learned from | `vit.pth` (vit_large), SHA-256 `{'ab' * 32}`, licence not stated |"
    assert line in section(model_card(trained, TEXT), "Training")


def test_what_other_weights_reach_is_not_said_of_this_model(trained):
    start = {"weights": "vit.safetensors", "kind": "timm's vit_small", "sha256": "ab" * 32, "licence": "Apache-2.0"}
    tasks = tuple(
        dataclasses.replace(task, metrics={"start": start}) if task.name == "segment" else task
        for task in trained.tasks
    )
    front, body = parts(model_card(dataclasses.replace(trained, tasks=tasks), TEXT))
    told = section(body, "Evaluation")
    assert "| Segmentation" not in told and "| Classification" in told
    line = "Segmentation was finetuned from other weights, not from this model: `vit.safetensors` (timm's vit_small)"
    assert f"{line}, SHA-256 `{'ab' * 32}`, licence Apache-2.0." in told
    everything, _ = parts(model_card(trained, TEXT))
    assert len(front["model-index"][0]["results"]) == len(everything["model-index"][0]["results"]) - 1


def test_model_card_tells_the_run_as_it_was(trained):
    _, body = parts(model_card(trained, TEXT))
    training = section(body, "Training")
    assert "| steps | 500 |" in training and "| loss, held-out locations | not measured |" in training
    assert f"`{'5e' * 32}`" in training and "`c0ffee`" in training
    assert "| image sets | 1 |" in training, "one set is kept and in the training split"
    scores = section(body, "Evaluation")
    assert "| Segmentation (simulated), mIoU | 0.800 (0.750 to 0.840) | 0.820 (0.770 to 0.860) |" in scores
    limits = section(body, "Limits")
    assert "pretraining did not help here (0.020 below" in limits, "a loss is told"
    assert "all but collapsed (effective rank 1.4)" in limits
    assert "simulated Earth" in limits
    assert scores.count("| simulated | knn | ") == 3, "each encoder once: pretrained, random, pixels"
    assert (
        "\n\n**The training data are simulated**" in body
        and section(body, "Licence") == "\ncc-by-4.0\n\nContact: eo@example.org\n"
    )
    assert "| sentinel-2-l2a | B02, B03, B04 |" in body and "3,153,216 parameters" in body


def test_the_loss_of_training_sets_is_not_called_held_out(trained, model_dir):
    metrics = json.loads((model_dir / "metrics.json").read_text())
    row = "| loss, held-out locations |"
    for changed, words in (
        ({"held_out_sets": 0, "held_out_loss": 0.8851}, "not measured: no validation locations"),
        ({"held_out_sets": 0, "training_sets_loss": 0.8851}, "not measured: no validation locations"),
        ({"held_out_sets": 3, "held_out_loss": 0.8851}, "0.8851"),
    ):
        (model_dir / "metrics.json").write_text(json.dumps(metrics | changed))
        _, body = parts(model_card(trained, TEXT))
        assert f"{row} {words} |" in section(body, "Training")


def test_configured_lines_stand_beside_the_measured_and_cannot_become_markup(trained):
    _, body = parts(model_card(trained, TEXT))
    assert "- Crops \\| maps" in section(body, "Intended use")
    assert "- &lt;b>Snow&lt;/b>" in section(body, "Limits")
    assert section(body, "Licence").strip().startswith("cc-by-4.0")
    assert "eo@example.org" in body


def test_real_scenes_are_not_called_simulated(trained):
    _, body = parts(model_card(dataclasses.replace(trained, simulation=None), TEXT))
    assert "simulated**" not in body and "simulated Earth" not in body


def test_data_set_card_counts_what_is_there(trained):
    front, body = parts(dataset_card(trained, TEXT))
    assert front["size_categories"] == ["n<1K"] and front["pretty_name"] == "my sets"
    assert "3 image sets of 12 images at 3 locations, 2021-01-05 to 2021-07-05" in body
    inside = section(body, "What is in it")
    assert "| sentinel-2-l2a | 6 | 10 m |" in inside and "| landsat-oli-c2-l2 | 6 | 30 m |" in inside
    assert "| train | 1 | 1 | 1 |" in inside and "| val | 1 | 1 | 0 |" in inside
    quality = section(body, "Quality")
    assert "| registered | 6 |" in quality and "| cloud | 1 |" in quality and "| corrupt | 1 |" in quality
    assert "5e" * 32 in body


def test_the_corners_are_those_of_the_footprints_not_of_their_centres(trained):
    _, body = parts(dataset_card(trained, TEXT))
    west, south, east, north = trained.sets.total_bounds
    assert (west, north) == (-70.61, 47.41)
    assert f"South-west corner {position(west, south)}, north-east corner {position(east, north)}." in body


def test_what_nobody_has_named_is_named_by_what_it_was_made_of(trained):
    unnamed = CardParameters(licence="other")
    assert parts(dataset_card(trained, unnamed))[0]["pretty_name"] == "a2mae demo image sets"
    real = dataclasses.replace(trained, simulation=None)
    sensors = "landsat-oli-c2-l2 and sentinel-2-l2a"
    front, body = parts(model_card(real, unnamed))
    assert body.startswith(f"\n# a2mae on {sensors}\n") and front["datasets"] == [f"Image sets of {sensors}"]
    front, body = parts(dataset_card(real, unnamed))
    assert front["pretty_name"] == f"Image sets of {sensors}" and "demo" not in body
    assert "demo" not in model_card(real, unnamed)


def test_every_table_is_whole(trained):
    for card in (model_card(trained, TEXT), dataset_card(trained, TEXT)):
        rows = [line for line in card.splitlines() if line.startswith("|")]
        assert rows
        for block in card.split("\n\n"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, block


def test_without_a_model_or_sets_there_is_no_card(inputs):
    assert model_card(dataclasses.replace(inputs, model_dir=None), TEXT) is None
    assert dataset_card(dataclasses.replace(inputs, sets=None), TEXT) is None


def test_collapse_is_told_only_where_it_was_measured(trained, model_dir):
    metrics = json.loads((model_dir / "metrics.json").read_text())
    (model_dir / "metrics.json").write_text(json.dumps(metrics | {"effective_rank": 40.0}))
    card = model_card(dataclasses.replace(trained, scores=None), TEXT)
    assert "collapsed" not in card and "No task was scored with this model" in card


def example(card, model_dir, image):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    return code.replace("PATH", str(model_dir)).replace("IMAGE.tif", str(image))


@pytest.mark.parametrize(
    "case",
    [
        ("draw", {"in_chans": 3}, 3, "3 bands of one sensor, any of those below in any order"),
        ("draw", {"in_chans": 5}, 5, "5 bands of one sensor"),
        ("rgb", {"in_chans": 3}, 3, "red, green and blue of one sensor, in this order"),
        ("all", {"in_chans": 7}, 4, "of a sensor with fewer than 7, zeros after them"),
        ("draw", {"bands": "wavelength"}, 4, "with their centre wavelengths as `wavelength_nm`"),
    ],
)
def test_the_cards_example_runs_from_a_file_to_tokens(trained, model_dir, tmp_path, case):
    mode, options, bands, said = case
    small = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_dim": 32, "decoder_num_heads": 2}
    model = create_model("a2mae_vit_tiny_patch8", **small, decoder_depth=1, **options)
    names = ["B02", "B03", "B04", "B08"]
    config = {"method": "a2mae", "bands": {SENSOR: names}, "normalization": {SENSOR: dict.fromkeys(names, (0.2, 0.1))}}
    save_pretrained(model, model_dir, config={**config, "image_size": 32})
    (model_dir / "run" / "spec.json").write_text(json.dumps({"sampling": {"bands": mode}}))
    card = model_card(trained, TEXT)
    assert said in card and "multiples of 8" in card and "images of 32 × 32 pixels" in card
    image = write_tif(tmp_path / "image.tif", bands=bands, size=(36, 41), dtype="uint16", nodata=0)
    code = example(card, model_dir, image)
    known: dict = {}
    exec(code, known)
    assert known["tokens"].shape == (1, 1 + (36 // 8) * (41 // 8), 32) and known["tokens"].isfinite().all()
    assert known["images"].shape == (1, options.get("in_chans", bands), 32, 40)
    assert known["bands"][:3] == (["B02", "B03", "B04"] if bands > 3 else ["B04", "B03", "B02"])


@pytest.mark.parametrize(("sensor", "gsd_m"), [("landsat-oli-c2-l2", "30.0"), ("my-camera", "GSD_M")])
def test_the_first_call_has_the_pixels_of_the_models_own_sensor(trained, model_dir, sensor, gsd_m):
    assert "gsd_m=10.0)" in model_card(trained, TEXT)
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"bands": {sensor: ["B1"]}}))
    assert f"gsd_m={gsd_m})" in model_card(trained, TEXT)


def test_the_node_writes_the_cards_of_what_there_is(trained):
    card = {"model_name": "m", "dataset_name": "d", "licence": "other"}
    options = ReportParameters(title="A", sets=1, reconstructions=1, examples=1, picture_px=32, card=card)
    data = {"pruned_sets": trained.sets, "images": trained.images, "image_sets": trained.store}
    assert set(write_cards(options, ["prune"], {}, **data)) == {"dataset_card"}
    unpruned = {"sets": trained.sets, "images": trained.images, "image_sets": trained.store}
    assert set(write_cards(options, ["tag"], {}, **unpruned)) == {"dataset_card"}
    both = write_cards(options, ["prune", "pretrain"], {}, **data, pretrained_model=trained.model_dir)
    assert set(both) == {"model_card", "dataset_card"} and "# m\n" in both["model_card"]
