"""The command `a2mae`: what is done to files, beside the chain (`kedro run`). `weights` needs the bare install alone.

Not `a2mae.cli`: Kedro takes a module of that name for its own commands.
"""

from __future__ import annotations

import argparse
import sys

from a2mae.commands import check, export, init, labels, weights
from a2mae.errors import A2maeError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those of the process if None.

    Returns:
        The exit status: 0 done, 1 refused with a sentence.
    """
    parser = argparse.ArgumentParser(
        prog="a2mae", description="Begin with a folder of scenes; look at files of weights and convert them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init.add_to(commands)
    labels.add_to(commands)
    check.add_to(commands)
    weights.add_to(commands)
    export.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except A2maeError as error:
        sys.stderr.write(f"a2mae: {error}\n")
        return 1
    return 0
