"""The documentation holds: links lead somewhere, and what it shows of configuration and Python is what there is."""

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import a2mae
from a2mae.config import Parameters
from a2mae.explore.parameters import DeliverParameters, SearchParameters
from a2mae.sensors import BUILTIN_SENSORS
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.parameters import CoregisterParameters
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters
from a2mae.training.parameters import PretrainParameters
from helpers.checkout import ROOT
from helpers.configuration import laid_over
from helpers.pages import PAGES

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def blocks(language: str) -> list[tuple[str, str]]:
    """Each fenced block of a language with its page."""
    return [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S)
    ]


MODELS: dict[str, type[Parameters]] = {
    "evaluate": EvaluateParameters,
    "ingest": IngestParameters,
    "coregister": CoregisterParameters,
    "pretrain": PretrainParameters,
    "deliver": DeliverParameters,
    "search": SearchParameters,
    **dict.fromkeys(("classify", "segment", "detect_change", "estimate", "detect_transitions"), TaskParameters),
}


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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks/README.md"], ids=lambda page: page.name)
def test_every_module_that_is_named_is_there(page):
    """Of the architecture every folder, too: it is the way into the code."""
    pattern = r"`([a-z][\w./-]*(?:\.py|/))`" if page.stem == "architecture" else r"`([a-z][\w./-]*/[\w-]+\.py)`"
    named = set(re.findall(pattern, page.read_text("utf-8")))
    bases = [ROOT / folder for folder in ("", "src", "src/a2mae", "benchmarks")]
    assert not {name for name in named if not any((base / name).exists() for base in bases)}
    assert page.stem != "architecture" or len(named) > 50


def test_the_table_of_sensors_is_that_of_the_code():
    """A swapped pair of bands in it would be a swapped pair in somebody's data."""
    rows = {}
    for line in (ROOT / "docs/own-sensor.md").read_text("utf-8").splitlines():
        if found := re.match(r"\| `([\w-]+)` \| ([\d.]+) \| (.+) \| (\w+) \|$", line):
            rows[found[1]] = found.groups()[1:]
    assert rows == {
        sensor.id: (
            f"{sensor.gsd_m:g}",
            ", ".join(
                f"{b.name} ({b.common_name})" if b.common_name not in ("", b.name) else b.name for b in sensor.bands
            ),
            sensor.encoding.units.value,
        )
        for sensor in BUILTIN_SENSORS.values()
    }


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
