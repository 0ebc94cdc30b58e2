import pytest
import torch

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.tasks.datasets.task_data import TaskData
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.registry import Task
from helpers.evaluation import CONFIG
from helpers.task_samples import make_samples, make_spec


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "classify"
    write_task_data(path, make_spec(), make_samples(Task.CLASSIFY, count=90, size=32))
    return TaskData(path)


@pytest.fixture(scope="package")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=2, decoder_dim=32)
    return save_pretrained(model, tmp_path_factory.mktemp("model"), config=CONFIG)


@pytest.fixture(scope="package")
def timm_file(tmp_path_factory):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), path)
    return path
