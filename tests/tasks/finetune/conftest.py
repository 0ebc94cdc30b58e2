import pytest

from helpers.task_models import data_of_each_task, pretrained_directory


@pytest.fixture(scope="package")
def pretrained(tmp_path_factory):
    return pretrained_directory(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return data_of_each_task(tmp_path_factory.mktemp("data"))
