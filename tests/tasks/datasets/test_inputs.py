"""What an encoder gets of task data: its bands at a time, normalised as in its pretraining."""

import dataclasses

import numpy as np
import pytest
import torch

from a2mae.models.layers.bands import ABSENT_NM
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import Sample, TaskData, TaskDataError, TaskSpec
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.train import finetune, predict
from a2mae.tasks.metrics.scores import main_score
from a2mae.tasks.parameters import FinetuneParameters
from a2mae.tasks.registry import Task
from helpers.task_models import CPU, build, data_of_each_task, pretrained_directory
from helpers.task_samples import SENTINEL2, make_row, split_at


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
    four = ("red", "green", "blue", "red")
    with pytest.raises(
        TaskDataError, match=r"3 bands at a time; found 4 \(red, green, blue, red\).* at most 3, or a mul"
    ):
        build(pretrained, data, Task.SEGMENT, "linear", bands=four)
    with pytest.raises(TaskDataError, match=r"3 bands at a time; found 0 \(\).*'segment\.bands'"):
        build(pretrained, data, Task.SEGMENT, "linear", bands=())
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
            (("red", "green", "red", "green"), f"'{name}.bands'"),
            (("red", "green", "nir"), f"set {name}.bands"),
            (("red", "green", "blue"), f"Choose other bands in {name}.bands"),
        ):
            with pytest.raises(TaskDataError, match=key):
                plan_inputs(data[Task.SEGMENT], bands, known, bands_per_view=3, group=group)
    with caplog.at_level("INFO"):
        plan_inputs(data[Task.SEGMENT], ("red", "green", "blue"), {"naip": {}}, bands_per_view=3, group="evaluate")
    assert "evaluate: sentinel-2-l2a is new to the encoder, 'test' is normalised by its training split" in caplog.text
    assert "(the encoder knows naip)" in caplog.text


def test_fewer_bands_than_the_encoder_takes_are_filled_up_with_absent_ones(pretrained, data):
    """A panchromatic band, or VV and VH, before an encoder of three bands."""
    _, inputs, plan = build(pretrained, data, Task.SEGMENT, "detail", bands=("red",))
    assert plan.views == 1 and plan.wavelength_nm[1:] == (ABSENT_NM, ABSENT_NM) and plan.wavelength_nm[0] > 600
    batch = inputs.batch(np.array([3]))
    assert batch.images.shape[:3] == (1, 1, 3) and not batch.images[:, :, 1:].any()
    whole = build(pretrained, data, Task.SEGMENT, "linear")[1].batch(np.array([3]))
    assert torch.equal(batch.images[:, :, 0], whole.images[:, :, 0])
    lazy = TaskInputs(data[Task.SEGMENT], plan, cache_mb=0).batch(np.array([3]))
    assert torch.equal(lazy.images, batch.images)


def radar_data(folder):
    """Sentinel-1's two polarisations of three covers, in its own units."""
    sensor = BUILTIN_SENSORS["sentinel-1-rtc"]
    rng = np.random.default_rng(0)
    level = np.array([[-20, -12, -9], [-28, -19, -14]])  # VV, VH in decibel
    spec = TaskSpec(
        Task.SEGMENT, "radar", ("water", "field", "forest"), (), sensor.bands, sensor.encoding, sensor.gsd_m
    )

    def samples():
        for index in range(40):
            cover = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)
            physical = level[:, cover] + rng.normal(0, 1.5, (2, 32, 32))  # speckle
            counts = np.round((physical - sensor.encoding.offset) / sensor.encoding.scale)
            row = make_row(f"place-{index}", split_at(index, 40), sensor=sensor.id)
            pixels = counts.astype(sensor.encoding.dtype)[None]
            yield Sample(pixels, np.ones((1, 32, 32), bool), cover, row)

    write_task_data(folder, spec, samples())
    return TaskData(folder)


def test_a_task_of_two_polarisations_is_learnt_by_an_encoder_of_three_bands(pretrained, tmp_path):
    data = radar_data(tmp_path / "radar")
    model, inputs, plan = build(pretrained, {Task.SEGMENT: data}, Task.SEGMENT, "detail", bands=("vv", "vh"))
    assert plan.normalised_by == ("data",), "the encoder has not seen radar"
    assert plan.wavelength_nm == (0.0, 0.0, ABSENT_NM), "radar is told from light and from what is absent"
    recipe = FinetuneParameters(steps=40, batch_size=16, lr=3e-3, warmup_steps=5)
    finetune(model, inputs, data.rows("train"), recipe, seed=0, device=CPU)
    test = data.rows("test")
    assert main_score(data, test, predict(model, inputs, test, batch_size=8, device=CPU)) > 0.7
