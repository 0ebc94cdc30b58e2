"""Temperatures and thresholds: fitted on validation, kept with the model, used by what is written."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from a2mae.config import read_back
from a2mae.models.checkpoint import read_config
from a2mae.tasks.datasets.task_data import IGNORE, TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.both_starts import answered
from a2mae.tasks.finetune.calibration import best_threshold, calibrate
from a2mae.tasks.finetune.finetuned import Finetuned, FinetuneRun, load_task_model, save_task_model
from a2mae.tasks.finetune.losses import TaskLoss
from a2mae.tasks.finetune.model import HeadConfig
from a2mae.tasks.finetune.train import predict
from a2mae.tasks.finetune.transitions import TransitionLoss, decided, split_codes
from a2mae.tasks.metrics.probabilities import calibration_error
from a2mae.tasks.registry import Task
from a2mae.tasks.transitions import encode
from helpers.task_models import CPU, build, pretrained_directory
from helpers.task_samples import make_samples, spec_for


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), min_size=1, max_size=50))
def test_law_no_hundredth_has_a_better_f1_than_the_chosen_one(cases):
    yes, probability = (np.array(part) for part in zip(*cases, strict=True))
    probability = probability / 100
    chosen = best_threshold(yes, probability)
    if not yes.any():
        assert chosen == 0.5
        return
    scores = [f1_score(yes, probability > step / 100, zero_division=0) for step in range(1, 100)]
    assert f1_score(yes, probability > chosen, zero_division=0) == pytest.approx(max(scores))


def test_configurations_of_earlier_models_are_read_and_new_ones_come_back():
    config = HeadConfig(Task.DETECT_CHANGE, "rcf", 2, temperature=1.5, thresholds=(0.2,))
    assert read_back(HeadConfig, config.to_dict(), "head") == config
    earlier = {key: value for key, value in config.to_dict().items() if key not in ("temperature", "thresholds")}
    assert read_back(HeadConfig, earlier, "head") == dataclasses.replace(config, temperature=1.0, thresholds=())


def test_a_threshold_decides_what_is_changed_and_how_sure_that_is():
    config = HeadConfig(Task.DETECT_CHANGE, "rcf", 2, thresholds=(0.2,))
    probabilities = torch.tensor([[0.75, 0.25], [0.85, 0.15]])
    labels, sure = config.decided(probabilities)
    assert labels.tolist() == [1, 0] and sure.tolist() == pytest.approx([0.25, 0.85])
    several = HeadConfig(Task.CLASSIFY, "linear", 2, multi_label=True, thresholds=(0.2, 0.9))
    labels, sure = several.decided(torch.tensor([[0.3, 0.8]]))
    assert labels.tolist() == [[1, 0]] and sure[0].tolist() == pytest.approx([0.3, 0.2])


@pytest.fixture
def change(tmp_path):
    """Change of which a quarter is told by nothing: an overconfident model can be seen to be one."""
    samples = list(make_samples(Task.DETECT_CHANGE, count=40, size=32))
    rng = np.random.default_rng(3)
    noisy = [
        dataclasses.replace(one, target=np.where(rng.random(one.target.shape) < 0.25, 1 - one.target, one.target))
        for one in samples
    ]
    write_task_data(tmp_path / "data", spec_for(Task.DETECT_CHANGE), noisy)
    return {Task.DETECT_CHANGE: TaskData(tmp_path / "data")}


def test_a_temperature_makes_an_overconfident_model_honest_and_is_kept(change, tmp_path):
    pretrained, data = pretrained_directory(tmp_path / "model"), change[Task.DETECT_CHANGE]
    model, inputs, _ = build(pretrained, change, Task.DETECT_CHANGE, "linear")
    with torch.no_grad():
        model.head.linear.weight *= 30  # sure of everything
    test = data.rows("test")
    before = float(calibration_error(answered(model, inputs, test, CPU)[1].answers().matrix))
    calibrate(model, inputs, data.rows("val"), seed=0, device=CPU)
    prediction, counts = answered(model, inputs, test, CPU)
    assert model.config.temperature > 2 and len(model.config.thresholds) == 1
    assert float(calibration_error(counts.answers().matrix)) < before
    assert np.array_equal(predict(model, inputs, test, batch_size=7, device=CPU), prediction)


def test_without_validation_all_stays_as_it_is(change, tmp_path, caplog):
    model, inputs, _ = build(pretrained_directory(tmp_path / "model"), change, Task.DETECT_CHANGE, "linear")
    config = model.config
    with caplog.at_level("INFO"):
        calibrate(model, inputs, np.array([], np.int64), seed=0, device=CPU)
    assert model.config == config and "no validation split" in caplog.text


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_law_what_is_decided_is_the_likeliest_pair_of_two_classes(seed, least):
    rng = torch.Generator().manual_seed(seed)
    before, after = (torch.rand(1, 4, 6, generator=rng).softmax(dim=1) for _ in range(2))
    change = torch.rand(1, 2, 6, generator=rng)
    change = change / change.sum(dim=1, keepdim=True)
    codes, sure = decided(before, after, change, least=least)
    for pixel in range(6):
        if change[0, 1, pixel] <= least:
            assert codes[0, pixel] == 0 and sure[0, pixel] == change[0, 0, pixel]
            continue
        pairs = {
            (was, became): float(before[0, was, pixel] * after[0, became, pixel])
            for was in range(4)
            for became in range(4)
            if was != became
        }
        was, became = divmod(int(codes[0, pixel]) - 1, 4)
        assert pairs[was, became] == pytest.approx(max(pairs.values()))
        share = pairs[was, became] / sum(pairs.values())
        assert float(sure[0, pixel]) == pytest.approx(float(change[0, 1, pixel]) * share, rel=1e-4)


def test_the_loss_knows_classes_change_and_consistency():
    loss = TransitionLoss(TaskLoss("cross_entropy"), TaskLoss("cross_entropy"), 3)
    was, became = np.array([[[0, 1]]]), np.array([[[2, 1]]])
    codes = torch.from_numpy(encode(was, became, 3)).long()
    assert [part.tolist() for part in split_codes(codes, 3)] == [[[[0, 1]]], [[[2, 1]]], [[[1, 0]]]]

    def outputs(first, second, changed):
        one_hot = torch.nn.functional.one_hot
        parts = [one_hot(torch.tensor(first), 3), one_hot(torch.tensor(second), 3), one_hot(torch.tensor(changed), 2)]
        return 20.0 * torch.cat(parts, dim=-1).float().T.reshape(1, 8, 1, 2)

    right = float(loss(outputs([0, 1], [2, 1], [1, 0]), codes))
    assert right == pytest.approx(0, abs=1e-6)
    assert float(loss(outputs([0, 1], [2, 1], [0, 0]), codes)) > 5, "a change that is missed"
    assert float(loss(outputs([1, 1], [2, 1], [1, 0]), codes)) > 2, "a wrong class before"
    nothing_known = torch.full((1, 1, 2), IGNORE)
    assert float(loss(outputs([1, 1], [2, 1], [1, 0]), nothing_known)) == 0
    unchanged = torch.zeros(1, 1, 2, dtype=torch.int64)  # of no known class: still both dates are alike
    alike, unlike = outputs([1, 1], [1, 1], [0, 0]), outputs([1, 1], [2, 1], [0, 0])
    assert float(loss(unlike, unchanged)) - float(loss(alike, unchanged)) == pytest.approx(0.25, abs=1e-3)


def test_a_model_of_transitions_comes_back_from_disk_with_both_heads(tmp_path):
    write_task_data(
        tmp_path / "data", spec_for(Task.DETECT_TRANSITIONS), make_samples(Task.DETECT_TRANSITIONS, count=20)
    )
    data = {Task.DETECT_TRANSITIONS: TaskData(tmp_path / "data")}
    directory = pretrained_directory(tmp_path / "model")
    model, inputs, plan = build(directory, data, Task.DETECT_TRANSITIONS, "detail")
    calibrate(model, inputs, data[Task.DETECT_TRANSITIONS].rows("val"), seed=0, device=CPU)
    run = FinetuneRun(Finetuned(model, plan, data[Task.DETECT_TRANSITIONS].spec), read_config(directory), "random", {})
    save_task_model(tmp_path / "task", run)
    again = load_task_model(tmp_path / "task")
    assert again.model.config == model.config and again.spec.label_names[2] == "field → forest"
    rows = data[Task.DETECT_TRANSITIONS].rows("test")
    found, wanted = (predict(one, inputs, rows, batch_size=4, device=CPU) for one in (again.model, model))
    assert np.array_equal(found, wanted) and found.max() <= 9
