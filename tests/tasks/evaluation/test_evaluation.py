import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from a2mae.models.checkpoint import load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.datasets.inputs import TaskBatch, TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import Task, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.evaluate import Units, evaluate_all
from a2mae.tasks.evaluation.features import (
    EncoderFeatures,
    ForeignFeatures,
    coarser,
    histogram_features,
    pixel_features,
)
from a2mae.tasks.evaluation.frozen import Candidate, evaluate_frozen, standardised
from a2mae.tasks.metrics.scores import METRICS, SCORE_COLUMNS, finetuned_rows, flat_scores, gain, score_task
from a2mae.tasks.parameters import EvaluateParameters, OtherEncoderParameters
from helpers.task_samples import EUROSAT_RGB, SENTINEL2, make_samples, make_spec, spec_for

CPU = torch.device("cpu")
STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
CONFIG = {"normalization": STATISTICS}
OPTIONS = EvaluateParameters(
    device="cpu", threads=1, bootstrap=100, shots=(1, 5), shot_seeds=2, relative_gsd=(0.25, 1.0)
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "classify"
    write_task_data(path, make_spec(), make_samples(Task.CLASSIFY, count=90, size=32))
    return TaskData(path)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    return save_pretrained(model, tmp_path_factory.mktemp("model"), config=CONFIG)


def batch_of(images, gsd_m=10.0):
    count = len(images)
    return TaskBatch(images[:, None], torch.full((count,), gsd_m), None, None, torch.zeros(3), torch.zeros(count))


@pytest.mark.parametrize("scale", [0.125, 0.25, 0.5])
def test_coarser_images_keep_their_mean_and_say_their_gsd(scale):
    images = torch.rand(2, 3, 64, 64)
    seen = coarser(batch_of(images), scale, 8)
    assert seen.images.shape[-1] == 64 * scale
    torch.testing.assert_close(seen.images.mean((-1, -2))[:, 0], images.mean((-1, -2)))
    assert seen.gsd_m.tolist() == [10.0 / scale] * 2
    # one pixel is the mean of its block
    side = int(1 / scale)
    torch.testing.assert_close(seen.images[0, 0, 0, 0, 0], images[0, 0, :side, :side].mean())


def test_a_side_below_the_patch_is_enlarged_and_its_gsd_is_that_of_the_pixels_fed():
    seen = coarser(batch_of(torch.rand(1, 3, 64, 64)), 0.125, 16)
    assert seen.images.shape[-1] == 16
    assert seen.gsd_m.tolist() == [40.0]


def test_baselines_are_what_they_say():
    images = torch.zeros(1, 3, 16, 16)
    images[0, 0, :8] = 10.0  # beyond three deviations: counted in the last bin
    histogram = histogram_features(batch_of(images)).reshape(3, 32)
    assert histogram.sum(1).tolist() == [1.0, 1.0, 1.0]
    assert histogram[0, 31] == histogram[0, 16] == 0.5
    pixels = pixel_features(batch_of(images)).reshape(3, 8, 8)
    assert pixels[0, :4].min() == 10.0
    assert pixels[0, 4:].max() == 0.0


def test_encoder_features_are_the_encoders(pretrained, data):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue") * 2, STATISTICS, bands_per_view=3, location=True)
    batch = TaskInputs(data, plan).batch(np.arange(3))
    with torch.no_grad():
        tokens = encoder.forward_features(
            batch.images[:, 0, :3], gsd_m=batch.gsd_m, lonlat_deg=batch.lonlat_deg, day=batch.day[:, 0]
        )
    patches = tokens[:, 1:]
    spread = (patches - patches.mean(1, keepdim=True)).square().mean(1).sqrt()
    for pool, expected in (
        ("cls", tokens[:, 0]),
        ("mean", patches.mean(1)),
        ("mean_std", torch.cat([patches.mean(1), spread], 1)),
    ):
        found = EncoderFeatures(encoder, pool=pool, bands_per_view=3)(batch)
        torch.testing.assert_close(found, torch.cat([expected, expected], 1))


def test_half_precision_gives_nearly_the_same_features(pretrained, data):
    encoder = load_encoder(pretrained)
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    batch = TaskInputs(data, plan).batch(np.arange(4))
    whole, half = (
        EncoderFeatures(encoder, pool="mean_std", bands_per_view=3, precision=precision)(batch)
        for precision in ("32-true", "bf16-mixed")
    )
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.05 * whole.abs().max()


def test_protocols_score_what_is_separable_and_only_that(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)
    rows = pd.DataFrame(evaluate_frozen(Candidate("histogram", histogram_features), inputs, OPTIONS, CPU))
    assert set(rows.columns) == set(SCORE_COLUMNS)
    assert rows["mode"].value_counts().to_dict() == {"knn": 4, "knn_standardised": 4, "few_shot": 4, "linear_probe": 1}
    assert rows[rows["mode"] != "few_shot"]["value"].min() > 0.95  # three covers of different colour
    assert sorted(rows[rows["mode"] == "knn"]["gsd_m"].unique()) == [10.0, 40.0]
    noise = {}

    def random_vectors(batch):
        return torch.randn(len(batch.images), 8, generator=noise.setdefault("g", torch.Generator().manual_seed(0)))

    chance = pd.DataFrame(evaluate_frozen(Candidate("noise", random_vectors), inputs, OPTIONS, CPU))
    assert chance["value"].max() < 0.8
    assert abs(chance["value"].mean() - 1 / 3) < 0.15


def test_a_constant_part_that_drowns_the_vote_is_taken_out_by_standardising(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)

    def drowned(batch):
        """A dimension that tells the classes, one that is constant and one of noise as large as the signal is small."""
        signal = batch.images[:, 0].mean((-1, -2)) * 1e-3
        noise = torch.linspace(-1, 1, len(signal))[:, None].flip(0) * (signal[:, :1] * 1e4).sin()
        return torch.cat([signal, noise * 1e-2, torch.full((len(signal), 1), 5.0)], dim=1)

    only = OPTIONS.model_copy(update={"shots": (), "relative_gsd": (1.0,)})
    table = pd.DataFrame(evaluate_frozen(Candidate("drowned", drowned), inputs, only, CPU))
    value = table.groupby("mode")["value"].mean()
    assert value["knn_standardised"] > value["knn"] + 0.2
    bank = torch.randn(50, 3) * torch.tensor([1.0, 9.0, 0.0]) + 4
    scaled, query = standardised(bank, bank[:5])
    torch.testing.assert_close(scaled[:5], query)
    torch.testing.assert_close(scaled[:, :2].std(0), torch.ones(2))
    assert torch.isfinite(scaled).all()


def test_change_data_is_refused(tmp_path):
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), make_samples(Task.SEGMENT))
    segment = TaskData(tmp_path / "data")
    plan = plan_inputs(segment, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    with pytest.raises(TaskDataError, match="evaluate needs classification data, found segment"):
        evaluate_frozen(Candidate("pixels", pixel_features), TaskInputs(segment, plan), OPTIONS, CPU)


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


def kept_in(folder, code="as it is"):
    return Units(folder, code)


def test_a_stopped_evaluation_goes_on_and_what_has_changed_is_judged_anew(pretrained, data, tmp_path, monkeypatch):
    judged, stop_at = [], ["pixels"]

    def watched(candidate, *arguments):
        judged.append(candidate.name)
        if candidate.name in stop_at:
            stop_at.clear()
            raise InterruptedError
        return evaluate_frozen(candidate, *arguments)

    monkeypatch.setattr("a2mae.tasks.evaluation.evaluate.evaluate_frozen", watched)
    kept = kept_in(tmp_path / "kept")
    with pytest.raises(InterruptedError):
        evaluate_all(OPTIONS, pretrained, data, [], kept)
    assert len(list((tmp_path / "kept").iterdir())) == 2
    table = evaluate_all(OPTIONS, pretrained, data, [], kept).table
    assert judged == ["pretrained", "random", "pixels", "pixels", "histogram"]
    pd.testing.assert_frame_equal(table, evaluate_all(OPTIONS, pretrained, data, [], kept_in(tmp_path / "new")).table)

    def judges_again(options, model, kept):
        judged.clear()
        evaluate_all(options, model, data, [], kept)
        return judged

    assert judges_again(OPTIONS, pretrained, kept) == []
    assert judges_again(OPTIONS.model_copy(update={"encoders": ("histogram",)}), pretrained, kept) == []
    assert judges_again(OPTIONS.model_copy(update={"k": 5}), pretrained, kept) == list(OPTIONS.encoders)
    assert judges_again(OPTIONS, pretrained, kept_in(tmp_path / "kept", "changed")) == list(OPTIONS.encoders)
    other = shutil.copytree(pretrained, tmp_path / "model")
    save_pretrained(create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32), other, config=CONFIG)
    assert judges_again(OPTIONS, other, kept) == list(OPTIONS.encoders)


def test_one_table_holds_every_score_and_two_runs_are_equal(pretrained, data, tmp_path):
    folder = class_folder(tmp_path / "pictures")
    options = OPTIONS.model_copy(update={"folder": str(folder)})
    found = evaluate_all(options, pretrained, data, [metrics_of(data)], kept_in(tmp_path / "one"))
    table = found.table
    assert list(table.columns) == list(SCORE_COLUMNS)
    assert set(table["data"]) == {"test", "pictures"}
    assert set(table["model"]) == {"pretrained", "random", "pixels", "histogram"}
    assert ((table["low"] <= table["value"] + 1e-12) & (table["value"] <= table["high"] + 1e-12)).all()
    finetuned = table[(table["mode"] == "finetuned") & (table["metric"] == "top1")].set_index("model")["value"]
    assert finetuned["pretrained"] == 1.0
    assert finetuned["random"] == pytest.approx(1 / 3)
    assert found.summary["classify"]["test"]["finetuned"]["top1"]["pretrained"] == 1.0
    assert found.summary["classify"]["pictures"]["knn_native"]["histogram"] > 0.9
    again = evaluate_all(options, pretrained, data, [metrics_of(data)], kept_in(tmp_path / "two"))
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
    found = evaluate_all(options, pretrained, data, [metrics_of(data)], kept_in(tmp_path / "kept"))
    assert set(found.table["data"]) == {"test", "test (evaluate.folder)"}
    assert not found.table.duplicated(KEY).any()
    assert set(found.summary["classify"]["test (evaluate.folder)"]) == {"knn_native", "knn_mean_over_scales"} | {
        "knn_standardised", "linear_probe"
    }  # fmt: skip


def test_a_folder_alone_is_enough(pretrained, data, tmp_path):
    options = QUICK.model_copy(update={"folder": str(class_folder(tmp_path / "test"))})
    table = evaluate_all(options, pretrained, None, [], kept_in(tmp_path / "kept")).table
    assert set(table["data"]) == {"test"} and set(table["model"]) == {"pixels", "histogram"}
    with pytest.raises(TaskDataError, match=r"nothing to judge encoders on.* Set evaluate\.folder .* 'chain'"):
        evaluate_all(QUICK, pretrained, None, [], kept_in(tmp_path / "kept"))


def test_without_classification_data_the_finetuned_scores_are_all_and_that_is_said(pretrained, data, tmp_path, caplog):
    table = evaluate_all(QUICK, pretrained, None, [metrics_of(data)], kept_in(tmp_path)).table
    assert set(table["mode"]) == {"finetuned", "gain"}
    assert "no frozen encoder is judged: set evaluate.folder" in caplog.text


def test_data_of_several_classes_per_image_is_left_out_where_there_is_a_folder(pretrained, tmp_path, caplog):
    samples = [
        dataclasses.replace(sample, target=np.eye(3, dtype=np.uint8)[int(sample.target)])
        for sample in make_samples(Task.CLASSIFY, count=60, size=16)
    ]
    write_task_data(tmp_path / "several", dataclasses.replace(make_spec(), multi_label=True), samples)
    several = TaskData(tmp_path / "several")
    with pytest.raises(TaskDataError, match=r"need one class per image; 'test' has several.*evaluate\.folder"):
        evaluate_all(QUICK, pretrained, several, [], kept_in(tmp_path / "kept"))
    options = QUICK.model_copy(update={"folder": str(class_folder(tmp_path / "pictures"))})
    table = evaluate_all(options, pretrained, several, [], kept_in(tmp_path / "kept")).table
    assert set(table["data"]) == {"pictures"}
    assert "'test' (classify.data) has several: encoders are judged on evaluate.folder alone" in caplog.text


def test_an_encoder_of_a_name_that_is_taken_is_refused():
    for names in (("random",), ("mine", "mine")):
        others = [{"name": name, "kind": "directory", "model": "somewhere"} for name in names]
        with pytest.raises(ValueError, match=rf"'{names[0]}' is named twice"):
            EvaluateParameters.model_validate({"others": others})


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), path)
    return path


def test_encoders_from_elsewhere_are_scored_beside_ours(pretrained, data, timm_file, tmp_path):
    import timm

    others = (
        {"name": "timm_vit", "kind": "timm", "model": "test_vit", "weights": str(timm_file)},
        {"name": "twin", "kind": "directory", "model": str(pretrained)},
    )
    only = {"encoders": ("pretrained",), "others": others, "shots": (), "relative_gsd": (1.0,), "bootstrap": 100}
    table = evaluate_all(
        EvaluateParameters(device="cpu", threads=1, **only), pretrained, data, [], kept_in(tmp_path)
    ).table
    values = table.set_index(["model", "mode", "metric"])["value"]
    assert values["twin"].to_dict() == values["pretrained"].to_dict()
    assert set(table["model"]) == {"pretrained", "twin", "timm_vit"}
    # its features are timm's own, on images normalised by the training split
    entry = OtherEncoderParameters(**others[0])
    from safetensors.torch import load_file

    network = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    network.load_state_dict({k: v for k, v in load_file(timm_file).items() if not k.startswith("head.")})
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ForeignFeatures(entry, 3)(batch_of(images)), network(images))


def test_weights_that_do_not_fit_are_named(timm_file, tmp_path):
    entry = {"name": "x", "kind": "timm", "model": "test_vit2", "weights": str(timm_file)}
    with pytest.raises(TaskDataError, match=r"does not fit timm's test_vit2: \d+ tensors are missing"):
        ForeignFeatures(OtherEncoderParameters(**entry), 3)
    with pytest.raises(TaskDataError, match=r"1 differ in shape \(patch_embed.proj.weight .*3, 16, 16\) instead of"):
        ForeignFeatures(OtherEncoderParameters(**{**entry, "model": "test_vit"}), 5)
    with pytest.raises(TaskDataError, match="timm has no model 'resnet5000'"):
        ForeignFeatures(OtherEncoderParameters(**{**entry, "model": "resnet5000"}), 3)
    with pytest.raises(TaskDataError, match="no weights at"):
        ForeignFeatures(OtherEncoderParameters(**{**entry, "weights": str(tmp_path / "no.pth")}), 3)
    with pytest.raises(ValueError, match="'weights' is needed for kind timm, and for it alone"):
        OtherEncoderParameters(name="x", kind="timm", model="test_vit")


@pytest.mark.parametrize("task", list(Task))
def test_scores_have_their_tasks_metrics(tmp_path, task):
    write_task_data(tmp_path / "data", spec_for(task), make_samples(task))
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    truth = data.read_targets(rows)
    perfect = score_task(data, rows, truth, resamples=100, seed=0)
    assert list(perfect.scores) == list(METRICS[task])
    assert {score.value for score in perfect.scores.values()} == {1.0}
    assert perfect.confusion.sum() == truth.size
    flat = perfect.to_dict()
    both = {"pretrained": flat, "random": flat, "gain": flat_scores(gain(perfect, perfect))}
    table = finetuned_rows({"task": task.value, "data": "x", "gsd_m": 10.0, **both}, seed=0)
    assert [(row["model"], row["mode"]) for row in table[:: len(METRICS[task])]] == [
        ("pretrained", "finetuned"), ("random", "finetuned"), ("pretrained", "gain")
    ]  # fmt: skip
    assert len(table) == 3 * len(METRICS[task])


def test_a_gain_is_paired_over_places(tmp_path):
    """Two models that fail at the same hard places: each interval is wide, their difference's is narrow."""
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY, count=240, size=16))
    data = TaskData(tmp_path / "data")
    rows, rng = np.concatenate([data.rows(split) for split in ("train", "val", "test")]), np.random.default_rng(0)
    truth, places = data.read_targets(rows), data.samples["place"].to_numpy()[rows]
    assert len(set(places)) > 8
    hard = np.isin(places, sorted(set(places))[::2])
    wrong = (truth + 1) % len(data.spec.class_names)
    better = np.where(hard & (rng.random(len(rows)) < 0.9), wrong, truth).astype(np.uint8)
    worse = np.where(rng.random(len(rows)) < 0.05, wrong, better).astype(np.uint8)
    first, second = (score_task(data, rows, one, resamples=500, seed=3) for one in (better, worse))
    found, back = gain(first, second)["top1"], gain(second, first)["top1"]
    assert found.value == pytest.approx(first.scores["top1"].value - second.scores["top1"].value)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert 0 < found.low < found.high
    assert first.scores["top1"].low < second.scores["top1"].high  # side by side, the two intervals say nothing
    same = gain(first, first)["top1"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_one_place_tells_nothing_of_a_gain(tmp_path):
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY, count=60, size=16))
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    one = rows[data.samples["place"].to_numpy()[rows] == data.samples["place"].iloc[rows[0]]]
    scores = score_task(data, one, data.read_targets(one), resamples=50, seed=0)
    assert (gain(scores, scores)["top1"].low, gain(scores, scores)["top1"].high) == (-1.0, 1.0)


@pytest.mark.real_data
@pytest.mark.skipif(not EUROSAT_RGB.is_dir(), reason="../shared/data/eurosat_rgb is absent")
def test_colour_histograms_tell_eurosat_apart(pretrained, data, tmp_path):
    baselines = {"encoders": ("histogram", "pixels"), "relative_gsd": (1.0,), "c_grid": (0.1,), "shots": ()}
    options = OPTIONS.model_copy(update={"folder": str(EUROSAT_RGB), "folder_samples": 600, **baselines})
    summary = evaluate_all(options, pretrained, data, [], kept_in(tmp_path)).summary
    knn = summary["classify"]["eurosat_rgb"]["knn_native"]
    # with all 27,000: histogram 0.78, 8 x 8 pixels 0.48 (docs/tasks.md)
    assert knn["histogram"] > knn["pixels"] + 0.1 > 0.25
