"""The evaluation as a whole: what is scored, scored again, and joined to one table."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.models.timm_encoder import TimmConfig, TimmEncoder
from a2mae.remote.storage import Folder, Parts
from a2mae.tasks.datasets.inputs import TaskInputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.evaluate import evaluate_all
from a2mae.tasks.evaluation.features import EncoderFeatures
from a2mae.tasks.evaluation.frozen import evaluate_frozen
from a2mae.tasks.finetune.encoders import load_start
from a2mae.tasks.metrics.scores import SCORE_COLUMNS, flat_scores, gain, score_task
from a2mae.tasks.parameters import EvaluateParameters, OtherEncoderParameters
from a2mae.tasks.registry import Task
from helpers.evaluation import CONFIG, OPTIONS, batch_of
from helpers.task_samples import EUROSAT_RGB, make_samples, make_spec


def metrics_of(data):
    rows = data.rows("test")
    scores = {
        start: score_task(data, rows, prediction, resamples=100, seed=0)
        for start, prediction in (
            ("pretrained", data.read_targets(rows)),
            ("random", np.zeros(len(rows), np.uint8)),
        )
    }
    flat = {start: score.to_dict() for start, score in scores.items()}
    return {"task": "classify", "data": "test", "gsd_m": 10.0, **flat, "gain": flat_scores(gain(*scores.values()))}


def cache_in(folder, code="as it is"):
    return Parts(Folder(str(folder)), code)


def test_a_stopped_evaluation_goes_on_and_what_has_changed_is_judged_anew(pretrained, data, tmp_path, monkeypatch):
    scored, stop_at = [], ["rcf"]

    def watched(candidate, *arguments):
        scored.append(candidate.name)
        if candidate.name in stop_at:
            stop_at.clear()
            raise InterruptedError
        return evaluate_frozen(candidate, *arguments)

    monkeypatch.setattr("a2mae.tasks.evaluation.evaluate.evaluate_frozen", watched)
    kept = cache_in(tmp_path / "kept")
    with pytest.raises(InterruptedError):
        evaluate_all(OPTIONS, pretrained, data, [], kept)
    assert len(list((tmp_path / "kept").iterdir())) == 2
    table = evaluate_all(OPTIONS, pretrained, data, [], kept).table
    assert scored == ["pretrained", "random", "rcf", "rcf", "statistics", "histogram", "pixels"]
    pd.testing.assert_frame_equal(table, evaluate_all(OPTIONS, pretrained, data, [], cache_in(tmp_path / "new")).table)

    def scores_again(options, model, kept):
        scored.clear()
        evaluate_all(options, model, data, [], kept)
        return scored

    assert scores_again(OPTIONS, pretrained, kept) == []
    assert scores_again(OPTIONS.model_copy(update={"encoders": ("histogram",)}), pretrained, kept) == []
    assert scores_again(OPTIONS.model_copy(update={"k": 5}), pretrained, kept) == list(OPTIONS.encoders)
    assert scores_again(OPTIONS, pretrained, cache_in(tmp_path / "kept", "changed")) == list(OPTIONS.encoders)
    other = shutil.copytree(pretrained, tmp_path / "model")
    save_pretrained(create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32), other, config=CONFIG)
    assert scores_again(OPTIONS, other, kept) == list(OPTIONS.encoders)


def test_one_table_holds_every_score_and_two_runs_are_equal(pretrained, data, tmp_path):
    folder = class_folder(tmp_path / "pictures")
    options = OPTIONS.model_copy(update={"folder": str(folder)})
    found = evaluate_all(options, pretrained, data, [metrics_of(data)], cache_in(tmp_path / "one"))
    table = found.table
    assert list(table.columns) == list(SCORE_COLUMNS)
    assert set(table["data"]) == {"test", "pictures"}
    assert set(table["model"]) == {"pretrained", "random", "rcf", "statistics", "histogram", "pixels"}
    assert ((table["low"] <= table["value"] + 1e-12) & (table["value"] <= table["high"] + 1e-12)).all()
    finetuned = table[(table["mode"] == "finetuned") & (table["metric"] == "top1")].set_index("model")["value"]
    assert finetuned["pretrained"] == 1.0
    assert finetuned["random"] == pytest.approx(1 / 3)
    assert found.summary["classify"]["test"]["finetuned"]["top1"]["pretrained"] == 1.0
    assert found.summary["classify"]["pictures"]["knn_native"]["histogram"] > 0.9
    again = evaluate_all(options, pretrained, data, [metrics_of(data)], cache_in(tmp_path / "two"))
    pd.testing.assert_frame_equal(again.table, table)


def class_folder(folder, side=16):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            picture = rng.normal(level, 10, (side, side, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / name / f"{name}_{number}.png")
    return folder


KEY = ["task", "data", "model", "mode", "metric", "gsd_m", "seed"]
QUICK = OPTIONS.model_copy(update={"encoders": ("pixels", "histogram"), "shots": (), "relative_gsd": (1.0,)})


def test_two_folders_of_one_name_keep_their_rows_apart(pretrained, data, tmp_path):
    """The key of a row is its data's name, and that is a folder's last part."""
    options = QUICK.model_copy(update={"folder": str(class_folder(tmp_path / "b" / "test"))})
    found = evaluate_all(options, pretrained, data, [metrics_of(data)], cache_in(tmp_path / "kept"))
    assert set(found.table["data"]) == {"test", "test (evaluate.folder)"}
    assert not found.table.duplicated(KEY).any()
    assert set(found.summary["classify"]["test (evaluate.folder)"]) == {"knn_native", "knn_mean_over_scales"} | {
        "knn_standardised", "linear_probe", "search"
    }  # fmt: skip


def test_a_folder_alone_is_enough(pretrained, data, tmp_path):
    options = QUICK.model_copy(update={"folder": str(class_folder(tmp_path / "test"))})
    table = evaluate_all(options, pretrained, None, [], cache_in(tmp_path / "kept")).table
    assert set(table["data"]) == {"test"} and set(table["model"]) == {"pixels", "histogram"}
    with pytest.raises(TaskDataError, match=r"nothing to score encoders on.* Set evaluate\.folder .* 'chain'"):
        evaluate_all(QUICK, pretrained, None, [], cache_in(tmp_path / "kept"))


def test_without_classification_data_the_finetuned_scores_are_all_and_that_is_said(pretrained, data, tmp_path, caplog):
    table = evaluate_all(QUICK, pretrained, None, [metrics_of(data)], cache_in(tmp_path)).table
    assert set(table["mode"]) == {"finetuned", "gain"}
    assert "no frozen encoder is scored: set evaluate.folder" in caplog.text


def test_data_of_several_classes_per_image_is_left_out_where_there_is_a_folder(pretrained, tmp_path, caplog):
    samples = [
        dataclasses.replace(sample, target=np.eye(3, dtype=np.uint8)[int(sample.target)])
        for sample in make_samples(Task.CLASSIFY, count=60, size=16)
    ]
    write_task_data(tmp_path / "several", dataclasses.replace(make_spec(), multi_label=True), samples)
    several = TaskData(tmp_path / "several")
    with pytest.raises(TaskDataError, match=r"need one class per image; 'test' has several.*evaluate\.folder"):
        evaluate_all(QUICK, pretrained, several, [], cache_in(tmp_path / "kept"))
    options = QUICK.model_copy(update={"folder": str(class_folder(tmp_path / "pictures"))})
    table = evaluate_all(options, pretrained, several, [], cache_in(tmp_path / "kept")).table
    assert set(table["data"]) == {"pictures"}
    assert "'test' (classify.data) has several: encoders are scored on evaluate.folder alone" in caplog.text


def test_an_encoder_of_a_name_that_is_taken_is_refused():
    for names in (("random",), ("mine", "mine")):
        others = [{"name": name, "weights": "somewhere"} for name in names]
        with pytest.raises(ValueError, match=rf"'{names[0]}' is named twice"):
            EvaluateParameters.model_validate({"others": others})


def test_encoders_from_elsewhere_are_scored_beside_ours(pretrained, data, timm_file, tmp_path):
    others = (
        {"name": "timm_vit", "model": "test_vit", "weights": str(timm_file)},
        {"name": "twin", "weights": str(pretrained)},
    )
    only = {"encoders": ("pretrained",), "others": others, "shots": (), "relative_gsd": (0.5, 1.0), "bootstrap": 100}
    table = evaluate_all(
        EvaluateParameters(device="cpu", threads=1, layers=("last", "middle"), pool="mean", **only),
        pretrained, data, [], cache_in(tmp_path),
    ).table  # fmt: skip
    values = table.set_index(["model", "mode", "metric", "gsd_m"])["value"]
    assert values["twin"].to_dict() == values["pretrained"].to_dict()
    assert set(table["model"]) == {"pretrained", "twin", "timm_vit"}
    with pytest.raises(ValueError, match="parameter 'kind' is gone; set model to timm's name, or leave it away"):
        OtherEncoderParameters(name="x", kind="directory", weights=str(pretrained))


@torch.no_grad()
def test_the_vector_of_a_network_of_timm_is_timms_own(data, timm_file):
    import timm
    from safetensors.torch import load_file

    entry = OtherEncoderParameters(name="x", model="test_vit", weights=str(timm_file))
    loaded = load_start(entry, data, ("red", "green", "blue"), group="evaluate")
    network = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    network.load_state_dict({k: v for k, v in load_file(timm_file).items() if not k.startswith("head.")})
    images = TaskInputs(data, loaded.plan).batch(data.rows("test")).images[:, 0]
    assert abs(float(images.mean())) < 0.2 and abs(float(images.std()) - 1) < 0.2  # by the training split
    found = EncoderFeatures(loaded.encoder, pool="cls", bands_per_view=3)(batch_of(images))
    torch.testing.assert_close(found, network(images))


@pytest.mark.parametrize("model", ["test_resnet", "test_convnext"])
def test_a_pyramid_is_read_at_its_last_stage_alone(model):
    encoder = TimmEncoder(TimmConfig(model=model)).eval()
    images = torch.rand(2, 3, 64, 64)
    for layers in (("last",), ("middle", "joined")):
        features = EncoderFeatures(encoder, pool="mean", bands_per_view=3, layers=layers)
        assert list(features.readouts) == ["last"] and features.parts == 1
        torch.testing.assert_close(features(batch_of(images)), encoder.forward_features(images)[:, 1:].mean(1))


@pytest.mark.real_data
@pytest.mark.skipif(not EUROSAT_RGB.is_dir(), reason="../shared/data/eurosat_rgb is absent")
def test_colour_histograms_tell_eurosat_apart(pretrained, data, tmp_path):
    baselines = {"encoders": ("histogram", "pixels"), "relative_gsd": (1.0,), "c_grid": (0.1,), "shots": ()}
    options = OPTIONS.model_copy(update={"folder": str(EUROSAT_RGB), "folder_samples": 600, **baselines})
    summary = evaluate_all(options, pretrained, data, [], cache_in(tmp_path)).summary
    knn = summary["classify"]["eurosat_rgb"]["knn_native"]
    # with all 27,000: histogram 0.78, 8 x 8 pixels 0.48 (docs/tasks.md)
    assert knn["histogram"] > knn["pixels"] + 0.1 > 0.25
