from pathlib import Path

import pytest

from a2mae.simulate.delivery.manifest import Manifest
from a2mae.simulate.run import write_tiny_world


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write_tiny_world(folder, seed=3)
