"""Notices are there where the tables say so, and not where they do not."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from a2mae.report.inputs import ReportInputs
from a2mae.report.sections.attention import attention
from a2mae.report.sections.pretraining import reconstruction_errors
from a2mae.report.sections.scores import comparisons, verdict
from a2mae.report.sections.summary import summary
from a2mae.report.stage_pages import pages

SENSOR = "sentinel-2-l2a"


def titles(inputs) -> list[str]:
    return [way.title for way in attention(inputs)]


def test_what_to_look_at_is_what_the_tables_say(inputs):
    assert titles(inputs) == [
        "The scenes are simulated",
        "3 images of 12 could not be registered",
        "Segmentation does not gain from pretraining",
        "Some scores rest on 10 locations",
    ]
    shown = {page.name for page in pages(inputs)}
    assert all(way.page in shown for way in attention(inputs)), "no notice leads to a page that is not there"
    many = dataclasses.replace(inputs, rejected_images=pd.concat([inputs.rejected_images] * 4))
    assert "4 of 16 images rejected" in titles(many)
    assert next(w for w in attention(many) if "rejected" in w.title).text == "The most frequent reason is “cloud”."


def test_a_task_that_starts_from_other_weights_is_named(inputs):
    start = {"weights": "vit.safetensors", "kind": "timm's vit_small", "sha256": "ab" * 32, "licence": None}
    tasks = tuple(
        dataclasses.replace(task, metrics={"start": start}) for task in inputs.tasks if task.name == "segment"
    )
    told = [way for way in attention(dataclasses.replace(inputs, tasks=tasks)) if "other weights" in way.title]
    assert [way.title for way in told] == ["Segmentation starts from other weights"]
    assert "timm's vit_small (vit.safetensors)" in told[0].text and "Licence: not stated." in told[0].text


def test_a_sensor_that_was_never_trained_on_is_named(inputs):
    assert not [title for title in titles(inputs) if "trained on" in title]
    alone = [[SENSOR], ["landsat-oli-c2-l2"], ["gaofen-1", SENSOR]]  # train; val and pruned; test
    missing = dataclasses.replace(inputs, sets=inputs.sets.assign(sensors=alone))
    assert "gaofen-1 and landsat-oli-c2-l2 were never trained on" in titles(missing)
    assert not [title for title in titles(dataclasses.replace(missing, model_dir=None)) if "trained on" in title]


def test_images_without_cloud_mask_are_counted_once(inputs):
    images = inputs.images
    unseen = images.assign(cloud_fraction=images["cloud_fraction"].where(images["sensor"] == SENSOR))
    told = [way for way in attention(dataclasses.replace(inputs, images=unseen)) if "cloud mask" in way.title]
    assert [way.title for way in told] == ["No cloud mask for 6 images of landsat-oli-c2-l2"]
    assert "'mask' in 'ingest.rules'" in told[0].text and "'coregister.clouds.functions'" in told[0].text
    radar = unseen.assign(sensor=unseen["sensor"].replace("landsat-oli-c2-l2", "sentinel-1-rtc"))
    few = images.assign(cloud_fraction=images["cloud_fraction"].mask(images.index == 5))
    for fine in (radar, few, images):
        assert not [title for title in titles(dataclasses.replace(inputs, images=fine)) if "cloud mask" in title]


def test_images_that_could_not_be_registered_are_told_by_their_share(inputs):
    images = inputs.images
    state = images["registration"]

    def told(registration):
        looked = attention(dataclasses.replace(inputs, images=images.assign(registration=registration)))
        return [way for way in looked if "not be registered" in way.title]

    assert "most of the images" not in told(state)[0].text
    most = told(state.replace("registered", "nominal"))[0]
    assert most.title == "9 images of 12 could not be registered" and "most of the images" in most.text
    assert "'coregister.keep_nominal: false'" in most.text
    assert not told(state.where((state != "nominal") | (images.index == 3), "registered")), "one of twelve is no notice"


def test_what_to_look_at_names_a_training_that_failed(inputs, model_dir):
    rows = {"step": [1, 2], "loss": [0.5, 0.6], "effective_rank": [12.0, 3.0]}
    pd.DataFrame(rows).to_csv(model_dir / "run" / "metrics.csv", index=False)
    assert {"The loss did not fall", "The effective rank of the features fell"} <= set(titles(inputs))


def test_a_model_that_is_no_better_than_the_mean_of_what_it_saw_is_named(inputs, model_dir):
    told = "The model predicts hidden pixels no better than the mean of the visible ones"
    path = model_dir / "run" / "reconstructions.npz"
    with np.load(path) as file:
        arrays = dict(file)
    hidden = np.repeat(np.repeat(arrays["hidden"], 8, 2), 8, 3)
    arrays["valid"][:, 0, :5] = False  # pixels that nobody knows count on neither side

    def errors(prediction) -> tuple[float, float]:
        np.savez(path, **{**arrays, "prediction": prediction.astype(np.float32)})
        return reconstruction_errors(inputs)

    of_model, of_mean = errors(arrays["pixels"])
    assert of_model == 0 and of_mean == pytest.approx(1 / 12, rel=0.1)  # the variance of uniform noise
    assert told not in titles(inputs)
    means = np.zeros_like(arrays["pixels"])
    for n, k, band in np.ndindex(2, 3, 3):
        seen = ~hidden[n, k] & arrays["valid"][n, k]
        means[n, k, band] = arrays["pixels"][n, k, band][seen].mean()
    assert errors(means) == pytest.approx((of_mean, of_mean))
    errors(1 - arrays["pixels"])
    assert told in titles(inputs)
    (model_dir / "metrics.json").write_text('{"held_out_sets": 0}')
    assert told not in titles(inputs), "training sets are no held-out places"


def test_a_finetuned_model_below_the_probe_of_its_encoder_is_named(inputs):
    finetuned = inputs.scores[(inputs.scores["mode"] == "finetuned") & (inputs.scores["model"] == "pretrained")]

    def told(gain: float) -> list[str]:
        probe = finetuned[finetuned["task"] == "classify"].assign(mode="linear_probe")
        scores = pd.concat([inputs.scores, probe.assign(value=probe["value"] + gain)])
        found = attention(dataclasses.replace(inputs, scores=scores))
        return [way.text for way in found if "linear probe" in way.title]

    (text,) = told(0.05)
    assert (
        text.startswith("0.800 against 0.850 of a linear layer") and "train longer ('classify.finetune.steps')" in text
    )
    assert not told(-0.05)


def test_a_score_below_features_that_nothing_was_trained_for_is_named(inputs):
    model = inputs.scores[inputs.scores["model"] == "pretrained"]
    segment = model[(model["task"] == "segment") & (model["mode"] == "gain")].assign(over="rcf")

    def told(value: float, high: float) -> list[str]:
        scores = pd.concat([inputs.scores, segment.assign(value=value, high=high, low=value - 0.1)])
        found = attention(dataclasses.replace(inputs, scores=scores))
        return [way.text for way in found if "below random convolution features" in way.title]

    (text,) = told(-0.04, -0.01)
    assert text.startswith("finetuned by 0.040. These features train nothing")
    assert told(-0.04, 0.01)[0].startswith("finetuned by 0.040 (the interval includes 0).")
    assert not told(0.04, 0.09)
    gains = pd.concat([inputs.scores, segment])
    assert [item.random for item in comparisons(gains)] == [item.random for item in comparisons(inputs.scores)]


def test_an_interval_of_zero_width_is_no_certainty(inputs):
    flat = inputs.scores.assign(low=inputs.scores["value"], high=inputs.scores["value"], groups=2)
    found = dataclasses.replace(inputs, scores=flat)
    assert f"{len(flat)} intervals of zero width" in titles(found)
    for item in comparisons(flat):
        assert not item.clear and "on too few locations to tell" in verdict(item)
        assert item.interval == "without an interval, on too few locations"
    assert not [title for title in titles(inputs) if "zero width" in title]


def test_nothing_to_look_at_says_so(sets, images, rejected):
    fine = images.assign(registration="registered")
    inputs = ReportInputs("A", ("tag",), sets=sets, images=fine, rejected_images=rejected)
    section = next(s for s in summary(inputs, ()).sections if s.name == "look-at")
    assert section.lead == "Nothing stands out." and not section.blocks
