"""Configuration laid over configuration, and what the demo chains."""

import yaml

from helpers.checkout import ROOT


def laid_over(below: dict, above: dict) -> dict:
    """Configuration as Kedro merges it: key by key."""
    both = {
        key: laid_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both


DEMO = tuple(yaml.safe_load((ROOT / "conf/base/parameters_chain.yml").read_text("utf-8"))["chain"])
"""The stages that `kedro run` chains without `--env`: all but those that would make it longer."""
