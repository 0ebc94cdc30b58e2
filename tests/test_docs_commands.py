"""Each command that the documentation shows is understood by its program, which does all but the work."""

import argparse
import contextlib
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.cli.utils import find_run_command
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from packaging.requirements import Requirement

import a2mae
from a2mae import pipeline_registry
from a2mae.config import Parameters
from a2mae.pipelines import checks as inputs
from a2mae.tasks.finetune import encoders
from helpers.checkout import ROOT
from helpers.pages import PAGES, commands, inline_commands

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.fixture(scope="module", autouse=True)
def project():
    bootstrap_project(ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")  # nothing is run, so nothing is tracked
        patch.setattr(inputs, "tracked", lambda *_: None)  # a fresh clone holds no inputs, and none is read here
        patch.setattr(Parameters, "named_paths", lambda _: ())  # nor the reader's own files, nor data beside a clone
        patch.setattr(encoders, "check_start", lambda *_: None)
        yield
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES)


def parsed_by_click(command: click.Command, words: list[str]) -> dict[str, object]:
    """What the last subcommand is asked for; it is not called."""
    context = command.make_context(command.name, list(words), resilient_parsing=False)
    if isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, words
        return parsed_by_click(found, rest)
    return context.params


class ParsedError(Exception):
    """The arguments were understood; what follows would be the work."""


@contextlib.contextmanager
def only_parsing():
    """Let a program that uses argparse come as far as its arguments: it refuses them itself, or is stopped."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(ParsedError):
            yield


class WithoutNodes(SequentialRunner):
    """Goes through a run as Kedro does, from the command's options to each node's inputs, and calls no node."""

    def __init__(self) -> None:
        super().__init__()
        self.would_run: list[str] = []

    def _run(self, pipeline, catalog, hook_manager=None, run_id=None):
        for node in pipeline.nodes:
            for name in node.inputs:
                if name == "parameters" or name.startswith("params:"):
                    catalog.load(name)  # a value out of bounds or a mistyped key is an error here at the latest
            self.would_run.append(node.name)


def check_run(words: list[str]) -> None:
    """Kedro runs it, with every hook, all but the nodes' functions: they get their validated parameters and no call."""
    asked = parsed_by_click(find_run_command("a2mae"), words)
    env = asked["env"]
    if env == "mine":
        env = "real_samples"  # `a2mae init` makes the reader's own, and it is like this one
    assert env is None or (ROOT / "conf" / env).is_dir(), env
    stages = asked["pipelines"] or ([asked["pipeline"]] if asked["pipeline"] else None)
    with KedroSession.create(
        project_path=ROOT, env=env or "base", runtime_params=asked["params"], save_on_close=False
    ) as session:
        runner = WithoutNodes()
        session.run(pipeline_names=stages, runner=runner)
    assert runner.would_run, words


def check_kedro(words: list[str]) -> None:
    if words[:1] == ["run"]:
        check_run(words[1:])
    else:
        parsed_by_click(KedroCLI(ROOT), words)


def check_make(words: list[str]) -> None:
    """Make says what it would do."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_module(name: str, words: list[str]) -> None:
    """The module parses its own arguments."""
    if name == "a2mae":
        check_run(words)
        return
    with only_parsing(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words])
        runpy.run_module(name, run_name="__main__")


def check_a2mae(words: list[str]) -> None:
    from a2mae.commands import main

    with only_parsing():
        main(words)


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        check_module(words[1], words[2:])
    elif words[0] == "-c":
        compile(words[1], "shown", "exec")
    else:
        assert (ROOT / words[0]).is_file(), words


def check_dvc(words: list[str]) -> None:
    from dvc.cli.parser import get_main_parser

    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            asked = get_main_parser().parse_args(words)
        except SystemExit:
            pytest.fail(said.getvalue())
    for override in getattr(asked, "set_param", None) or []:
        path, key = override.split("=")[0].split(":")
        value = yaml.safe_load((ROOT / path).read_text("utf-8"))
        for part in key.split("."):
            value = value[part]


def check_pip(words: list[str]) -> None:
    """Pip's parser takes it, and what it names is this project with extras that it has."""
    from pip._internal.commands import create_command

    _, named = create_command(words[0]).parse_args(words[1:])
    assert words[0] == "install" and named
    for text in named:
        # A wheel or the checkout, not the bare name: no package index has it.
        found = re.fullmatch(r"(?:a2mae-(?P<version>.+)-py3-none-any\.whl|\.)(?P<extras>\[.+\])?", text)
        assert found and found["version"] in (None, a2mae.__version__), text
        assert Requirement(f"a2mae{found['extras'] or ''}").extras <= set(EXTRAS), text


def check_git(words: list[str]) -> None:
    known = subprocess.run(["git", "--list-cmds=main"], capture_output=True, text=True, check=True).stdout.split()
    assert words[0] in known, words


def check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    asked = get_args_parser().parse_args(words)
    assert asked.module, "our modules are started as modules"
    check_module(asked.training_script, asked.training_script_args)


def check_wandb(words: list[str]) -> None:
    parsed_by_click(importlib.import_module("wandb.cli.cli").cli, words)


def check_dask(words: list[str]) -> None:
    assert words[0] == "worker"
    parsed_by_click(importlib.import_module("distributed.cli.dask_worker").main, words[1:])


def check_copy(words: list[str]) -> None:
    """What is copied is there."""
    *sources, _ = [word for word in words if not word.startswith("-")]
    assert sources and all((ROOT / source).exists() for source in sources), words


def check_source(words: list[str]) -> None:
    assert words == [".venv/bin/activate"], "what `make install` makes"


def check_lower_bounds(words: list[str]) -> None:
    assert set(words) <= set(runpy.run_path(str(ROOT / ".ci/lower_bounds"))["TESTS"])


def check_tar(words: list[str]) -> None:
    assert words == ["-xzf", "conf-a2mae.tar.gz"], "what `kedro package` makes"


def check_started(words: list[str]) -> None:
    """A launcher's own words end where the program's begin."""
    check_words(words)


CHECKS = {
    "a2mae": check_a2mae,
    "kedro": check_kedro,
    "make": check_make,
    "python": check_python,
    "dvc": check_dvc,
    "pip": check_pip,
    "git": check_git,
    "torchrun": check_torchrun,
    "srun": check_started,
    "wandb": check_wandb,
    "dask": check_dask,
    "cp": check_copy,
    "source": check_source,
    "lower_bounds": check_lower_bounds,
    "tar": check_tar,
}
PLAIN = {"cd", "mkdir", "echo"}
"""Of the shell, with nothing in them that this project could rename."""


def check_words(words: list[str]) -> None:
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words = words[1:]  # a variable for this command alone
    program = Path(words[0]).name if words else ""
    if program and program not in PLAIN:
        assert program in CHECKS, f"no test understands `{program}`"
        CHECKS[program](words[1:])


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_is_understood(page, command):
    for part in [command] if '"' in command else re.split(r"\s*(?:&&|\|\||;|\|)\s*", command):
        check_words(shlex.split(part))


PARTS = {"a2mae init", "python -m a2mae.lineage", "dvc exp run -S", "dvc remote modify --local", "dvc plots"}
"""In running text the name of a thing, no whole command."""


@pytest.mark.parametrize("command", sorted(set(inline_commands(CHECKS)) - PARTS))
def test_every_command_in_running_text_is_understood(command):
    check_words(shlex.split(command))


@pytest.mark.parametrize(
    "wrong",
    [
        "kedro run --pipelins=tag",
        "kedro run --params=prune.max_per_clutser=1",
        "kedro registry lst",
        "make demoo",
        "python -m a2mae.training RUN_DIR --devces=8",
        "python -m a2mae.lineage",
        "python -m a2mae --pipeline",
        "python -m benchmarks.compare --qick",
        "torchrun --nproc-per-nodes=8 -m a2mae.training RUN_DIR",
        "dvc exp run --queued",
        "dvc exp run -S conf/base/parameters_prune.yml:prune.max_per_clutser=1",
        "pip install .[pipelines]",
        "pip install a2mae",
        "pip instal a2mae",
        "git comit",
        "cp -r conf/real_sample conf/mine",
        ".ci/lower_bounds pipelines",
        "conda install a2mae",
    ],
)
def test_a_command_that_nobody_understands_is_noticed(wrong, capsys):
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        check_words(shlex.split(wrong))


def test_extras_shown_in_running_text_exist():
    for page in PAGES:
        for extra in re.findall(r"a2mae\[([a-z,]+)\]", page.read_text("utf-8")):
            assert set(extra.split(",")) <= set(EXTRAS), f"{page.name}: {extra}"
