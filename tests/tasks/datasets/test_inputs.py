"""What an encoder gets of task data: its bands at a time, normalised as in its pretraining."""

import dataclasses

import numpy as np
import pytest
import torch

from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.registry import Task
from helpers.task_models import build, data_of_each_task, pretrained_directory
from helpers.task_samples import SENTINEL2


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretrained_directory(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_of_each_task(tmp_path_factory.mktemp("data"))


def test_inputs_are_normalised_as_in_pretraining(pretrained, data):
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
