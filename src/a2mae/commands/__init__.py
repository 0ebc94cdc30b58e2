"""The command `a2mae`: what is done to files, beside the chain (`kedro run`). `weights` needs the bare install alone.

Not `a2mae.cli`: Kedro takes a module of that name for its own commands.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from a2mae.commands import check, export, init, labels, search, weights
from a2mae.errors import A2maeError, InputError

_EPILOG = """\
for example:
  a2mae init ~/scenes --name lake
  a2mae labels ~/fields.gpkg --env lake
  a2mae check --env lake

a2mae COMMAND --help says more of each. Completion of words by the tabulator:
  a2mae --print-completion bash >> ~/.bash_completion   (or zsh, tcsh)"""


class _Completion(argparse.Action):
    """Writes a script that completes the words of `a2mae` in a shell."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        if importlib.util.find_spec("shtab") is None:
            raise InputError("scripts of completion are written by shtab, which is not installed: pip install shtab")
        import shtab  # noqa: PLC0415 (the bare install has none)

        sys.stdout.write(shtab.complete(parser, shell=str(values)) + "\n")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="a2mae",
        description="Begin with scenes and labels of your own; look at files of weights and convert them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--print-completion", action=_Completion, choices=("bash", "zsh", "tcsh"), help="write a script for a shell"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (init, labels, check, search, weights, export):
        module.add_to(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those of the process if None.

    Returns:
        The exit status: 0 done, 1 refused with a sentence.
    """
    try:
        options = build_parser().parse_args(arguments)
        options.run(options)
    except A2maeError as error:
        sys.stderr.write(f"a2mae: {error}\n")
        return 1
    except OSError as error:  # a path that the system refuses: too long, below a file, without access
        # A library names it in its own words.
        place = "" if error.filename is None else f"{error.filename} cannot be used: "
        sys.stderr.write(f"a2mae: {A2maeError(f'{place}{error.strerror or error}')}\n")
        return 1
    return 0
