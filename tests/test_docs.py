"""The documentation holds: links lead somewhere, and each command it shows is one that this project understands."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from kedro.framework.cli.utils import _split_params
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from pydantic import ValidationError

import a2mae
from a2mae import pipeline_registry
from a2mae.parameters import Parameters
from a2mae.stssd.building.parameters import CoregisterParameters
from a2mae.stssd.ingesting.parameters import IngestParameters
from a2mae.tasks.parameters import TaskParameters
from helpers.checkout import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
ELSEWHERE = {
    "source",
    "torchrun",
    "srun",
    "wandb",
    "pip",
    "git",
    "cd",
    "sbatch",
    "export",
    "cp",
    "mkdir",
    "echo",
    "tar",
}
"""Commands of other tools, which need what a test has not: a cluster, an account, a registry."""


def commands() -> list[tuple[str, str]]:
    """Each command of the shell blocks with its page; continued lines are joined, comments are dropped."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text("utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s+#\s.*$", "", line).strip().removeprefix("$ ")
                if text and not text.startswith("#"):
                    found.append((page.relative_to(ROOT).as_posix(), text))
    return found


@pytest.fixture(scope="module", autouse=True)
def project():
    bootstrap_project(ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")  # nothing is run, so nothing is tracked
        yield
    pipeline_registry.use_chain(pipeline_registry.STAGES)


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


def options(words: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)


def check_kedro(words: list[str]) -> None:
    """Kedro runs it, with every hook, all but the nodes' functions: they get their validated parameters and no call."""
    if words[:1] != ["run"]:
        assert words[0] in ("viz", "registry", "catalog", "jupyter", "package"), words
        return
    given = options(words)
    env = given.get("env")
    if any(command == f"mkdir conf/{env}" for _, command in commands()):
        env = "real_samples"  # the page makes an environment of its own after this one
    assert env is None or (ROOT / "conf" / env).is_dir(), env
    runtime = _split_params(None, None, given["params"]) if "params" in given else {}
    stages = [stage for stage in given.get("pipelines", given.get("pipeline", "")).split(",") if stage]
    with KedroSession.create(
        project_path=ROOT, env=env or "base", runtime_params=runtime, save_on_close=False
    ) as session:
        runner = WithoutNodes()
        session.run(pipeline_names=stages or None, runner=runner)
    assert runner.would_run, words


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    wanted = {word for word in words if "=" not in word}
    assert wanted <= targets, wanted - targets


def check_python(words: list[str]) -> None:
    if words[:1] == ["-m"]:
        name = words[1]
        if name.startswith("a2mae"):
            found = importlib.util.find_spec(name)
            if found and found.submodule_search_locations:
                found = importlib.util.find_spec(f"{name}.__main__")
            assert found, name
            source = Path(str(found.origin)).read_text("utf-8")
            for word in words[2:]:
                if word.startswith("--"):
                    assert f'"{word.split("=")[0]}"' in source, f"{name} has no {word}"
    elif words and words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file(), words[0]


def check_dvc(words: list[str]) -> None:
    for word in words:
        if ".yml:" in word:
            path, key = word.split("=")[0].split(":")
            value = yaml.safe_load((ROOT / path).read_text("utf-8"))
            for part in key.split("."):
                value = value[part]


CHECKS = {"kedro": check_kedro, "make": check_make, "python": check_python, "dvc": check_dvc}


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_is_understood(page, command):
    for part in [command] if '"' in command else re.split(r"\s*(?:&&|\|\||;|\|)\s*", command):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words = words[1:]  # a variable for this command alone
        if not words:
            continue
        program = Path(words[0]).name
        if program not in ELSEWHERE:
            assert program in CHECKS, f"{page} shows `{command}`: no test understands `{program}`"
            CHECKS[program](words[1:])


def blocks(language: str) -> list[tuple[str, str]]:
    """Each fenced block of a language with its page."""
    return [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S)
    ]


MODELS: dict[str, type[Parameters]] = {
    "ingest": IngestParameters,
    "coregister": CoregisterParameters,
    **dict.fromkeys(("classify", "segment", "detect_change"), TaskParameters),
}


def laid_over(below: dict, above: dict) -> dict:
    """Configuration as Kedro merges it: key by key."""
    both = {
        key: laid_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_every_configuration_shown_is_accepted(page, block, tmp_path, monkeypatch):
    """Laid over base, a shown group passes the validation of its model: closed, with bounds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    point = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [12.3, 51.9]}}
    Path("cities.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [point]}))
    for _, code in blocks("python"):  # a module that a page shows beside the configuration that names it
        if named := re.match(r"# (\w+\.py)", code):
            Path(named[1]).write_text(code)
            # Another test of this process may have a module of that name; neither must see the other's.
            monkeypatch.setitem(sys.modules, Path(named[1]).stem, None)
            monkeypatch.delitem(sys.modules, Path(named[1]).stem)
    importlib.invalidate_caches()
    shown = yaml.safe_load(block)
    shown = {"ingest": shown} if "rules" in shown else shown
    assert shown and set(shown) <= set(MODELS), f"{page} shows {list(shown)}: no test knows its model"
    for group, values in shown.items():
        base = yaml.safe_load((ROOT / f"conf/base/parameters_{group}.yml").read_text("utf-8"))[group]
        MODELS[group].model_validate(laid_over(base, values))
        with pytest.raises(ValidationError):
            MODELS[group].model_validate(laid_over(base, values) | {"no_such_key": 1})


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_every_python_shown_compiles_and_imports_what_exists(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("a2mae"):
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], page


def test_no_block_is_without_its_language():
    """Or its commands would escape the tests above."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.M)
        assert all(fences[::2]) and not any(fences[1::2]), page.name


def test_parameters_shown_in_running_text_exist():
    """`dvc exp run -S file:key=value` and `pip install a2mae[extra]` stand in the text, not in blocks."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for page in PAGES:
        text = page.read_text("utf-8")
        for shown in re.findall(r"`dvc exp run ([^`]+)`", text):
            check_dvc(shown.split())
        for extra in re.findall(r"a2mae\[([a-z,]+)\]", text):
            assert set(extra.split(",")) <= set(extras), f"{page.name}: {extra}"


def anchors(text: str) -> set[str]:
    """Ids of a page's headings as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target and not target.startswith("#"):
            path, _, anchor = target.partition("#")
            found = (page.parent / path).resolve()
            assert found.exists(), f"{page.name} links to {target}"
            inside = not page.is_relative_to(ROOT / "docs") or found.is_relative_to(ROOT / "docs")
            assert inside, f"{page.name} links to {target}: the site has nothing outside docs/"
            if anchor:
                assert anchor in anchors((page.parent / path).read_text("utf-8")), f"{page.name} links to {target}"


def test_the_site_has_every_page_once():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [name for item in (entry if isinstance(entry, list) else entry.values()) for name in pages(item)]

    shown = pages(SITE["nav"])
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert len(shown) == len(set(shown)) and set(shown) == written


@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is absent: make install")
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    """Strict: a broken link, a page outside the contents, a docstring that does not parse are errors; six seconds."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]
    pages = sorted(tmp_path.rglob("*.html"))
    written = [page for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) == len(written) + 1, "each page, and the one for addresses that are none"
    for page in pages:
        text = page.read_text("utf-8")
        fetched = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=[\"']?(https?://[^\"'> ]+)", text)
        assert not fetched, f"{page.relative_to(tmp_path)} asks {fetched}"
    shown = (tmp_path / "api/models/index.html").read_text("utf-8")
    assert "load_encoder" in shown and "lonlat_deg" in shown, "signatures from the docstrings"


def test_the_citation_names_the_version_and_the_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == a2mae.__version__ and cited["license"] == "Apache-2.0" and cited["cff-version"]
