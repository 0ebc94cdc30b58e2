"""A linear head on random convolution features, beside which pretrained models are scored."""

import numpy as np
import pytest
import torch

from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.finetune.baseline import convolution_baseline
from a2mae.tasks.finetune.train import predict
from a2mae.tasks.metrics.scores import score_task
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.registry import Task
from helpers.task_samples import make_samples, spec_for

CPU = torch.device("cpu")


@pytest.mark.parametrize(("task", "metric", "least"), [(Task.SEGMENT, "miou", 0.8), (Task.DETECT_CHANGE, "f1", 0.6)])
def test_it_learns_what_colour_and_texture_tell(tmp_path, task, metric, least, caplog):
    write_task_data(tmp_path / "data", spec_for(task), make_samples(task))
    data = TaskData(tmp_path / "data")
    options = TaskParameters.model_validate({"task": task, "finetune": {"steps": 5, "batch_size": 4, "mode": "full"}})
    model, inputs = convolution_baseline(options, data, patch_size=8, device=CPU)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    rows = data.rows("test")
    prediction = predict(model, inputs, rows, batch_size=8, device=CPU)
    score = score_task(data, rows, prediction, resamples=100, seed=0).scores[metric]
    always_first = score_task(data, rows, np.zeros_like(prediction), resamples=100, seed=0).scores[metric]
    assert score.value > least > np.nan_to_num(always_first.value)
    again, _ = convolution_baseline(options, data, patch_size=8, device=CPU)
    assert np.array_equal(predict(again, inputs, rows, batch_size=8, device=CPU), prediction)
