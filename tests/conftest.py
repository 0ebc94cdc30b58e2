"""For every test: threads that wait give up their core, or two test processes keep each other waiting.

The laws' examples are the same in every run of `make test`: what lands has passed what CI runs. New examples are looked
for by `pytest --hypothesis-profile=explore`; one that fails becomes an `@example`.
"""

import importlib
import os
import pkgutil

from hypothesis import settings

import a2mae
from a2mae.parallel import share_cores

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=1000)
settings.load_profile("same")

share_cores()  # before a test module imports torch

if "PYTEST_XDIST_WORKER" in os.environ:
    # Examples are also drawn from constants of the modules that are loaded by then: with all of them always the same.
    for module in pkgutil.walk_packages(a2mae.__path__, "a2mae."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

LONGEST = (
    "test_notebooks.py",
    "test_build_killed.py",
    "test_tasks.py",
    "test_dvc_experiments.py",
    "test_build_faults.py",
    "test_build.py",
    "test_export.py",
    "test_engine.py",
    "test_launch.py",
    "test_packaging.py",
)
"""Files that begin first: each runs in one process, and the last to end decides how long all take."""


def pytest_collection_modifyitems(items) -> None:
    """Put the longest files first; within a file the order stays."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
