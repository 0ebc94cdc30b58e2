"""Kedro project settings: hooks and how configuration is merged."""

from a2mae.hooks import DefaultChain, KnownGroups, Lineage, Watch, WritableOutputs
from a2mae.processes import share_cores

share_cores()  # before any node imports torch; the processes it starts inherit it

# Pluggy calls the last first: a mistyped group is named before the chain is read.
watch = Watch()
HOOKS = (watch, Lineage(watch), DefaultChain(), KnownGroups(), WritableOutputs())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment states only what differs: its parameters are merged into base's key by key.
    "merge_strategy": {"parameters": "soft", "catalog": "soft"},
}
