"""Kedro project settings: hooks and how configuration is merged."""

import os

from a2mae.parallel import share_cores
from a2mae.pipelines.environment_files import NamingConfigLoader
from a2mae.pipelines.hooks import Checks, Lineage, Unfinished, Watch
from a2mae.pipelines.summary import Summary
from a2mae.pipelines.uncaught import show_sentences

# A checkout says so in a file, which is not found by whoever starts a session from elsewhere.
os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
share_cores()  # before any node imports torch; the processes it starts inherit it
show_sentences()

watch = Watch()
HOOKS = (
    watch,
    Lineage(watch),
    Unfinished(),
    Summary(),
    Checks(),
)  # the last is called first: nothing is recorded of a run that is refused

CONFIG_LOADER_CLASS = NamingConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment states only what differs: its parameters are merged into base's key by key.
    "merge_strategy": {"parameters": "soft", "catalog": "soft"},
}
