"""The wheel: complete, and enough for inference with nothing but torch, timm, safetensors and NumPy beside it."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import a2mae
from a2mae.models import create_model, save_pretrained
from a2mae.provenance.code import files_of
from helpers.checkout import ROOT, checkout, run
from helpers.deliveries import write as write_scene

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SOURCE = ROOT / "src"


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def declared(*extras: str) -> set[str]:
    """Distributions that an install with these extras asks for."""
    wanted, todo = {name_of(text) for text in PROJECT["dependencies"]}, list(extras)
    while todo:
        for text in PROJECT["optional-dependencies"][todo.pop()]:
            if text.startswith("a2mae["):
                todo.append(text[6:-1])
            else:
                wanted.add(name_of(text))
    return wanted


def imported(files) -> dict[str, str]:
    """Third-party modules that files import, also inside functions, with one file that does."""
    found = {}
    for file in (file for file in files if file.suffix == ".py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "a2mae":
                    found.setdefault(top, file.name)
    return found


OPTIONAL = {"wandb", "triton", "terratorch", "torchgeo_bench"}  # everything else works without them
PACKAGES = metadata.packages_distributions()


@pytest.mark.parametrize(
    ("extras", "files"),
    [
        ((), sorted(files_of("a2mae.models", SOURCE))),
        (("train",), sorted(files_of("a2mae.training", SOURCE) | files_of("a2mae.models", SOURCE))),
        (("pipeline", "repro", "viz"), sorted((SOURCE / "a2mae").rglob("*.py"))),
    ],
    ids=["inference", "train", "everything"],
)
def test_what_is_imported_is_declared(extras, files):
    wanted = declared(*extras)
    missing = {
        name: file
        for name, file in imported(files).items()
        if name not in OPTIONAL
        and not wanted & {found.lower().replace("_", "-") for found in PACKAGES.get(name, [name])}
    }
    assert not missing, f"imported but not in dependencies or extras {extras}: {missing}"


UNSEEN = {
    "dask": "imported by name where a cluster is used",
    "s3fs": "fsspec imports it for s3://",
    "torchvision": "of torch's version",
    "zarrs": "Zarr imports it by name",
    "dvc": "a command",
    "dvc-s3": "DVC imports it for s3://",
    "kedro-viz": "a command",
}
"""Declared though no file of ours imports it, and why."""


@pytest.mark.parametrize(
    ("extras", "folder"),
    [(("", "train", "pipeline", "repro", "viz"), SOURCE / "a2mae"), (("bench",), ROOT / "benchmarks")],
    ids=["package", "benchmarks"],
)
def test_what_is_declared_is_imported(extras, folder):
    listed = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    names = {name_of(text) for extra in extras for text in listed[extra]} - {"a2mae"}
    modules = imported(sorted(folder.rglob("*.py")))
    used = {found.lower().replace("_", "-") for name in modules for found in PACKAGES.get(name, [name])}
    assert names - used == names & set(UNSEEN)


def test_every_requirement_has_a_lower_bound_that_the_lock_keeps():
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
    locked = {name.lower().replace("_", "-"): version for name, version in locked.items()}
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    for text in texts:
        bound = re.search(r">=([\d.]+)", text)
        if bound is None:
            assert text.startswith("a2mae["), f"{text} has no lower bound"
        elif name_of(text) in locked:
            version = [int(part) for part in re.findall(r"\d+", locked[name_of(text)].split("+")[0])]
            assert version >= [int(part) for part in bound[1].split(".")], text


def test_every_pin_of_the_lock_has_the_hashes_of_its_files():
    """`pip --require-hashes` refuses the whole list for one pin without; an index's address would be somebody's own."""
    pins = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    assert len(pins) > 300
    assert all(re.fullmatch(r"\S+==\S+( ; [^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+", pin) for pin in pins)
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= {pin.split()[0] for pin in pins}
    assert "--require-hashes" in (ROOT / "Makefile").read_text()


def test_the_lower_bounds_that_are_installed_are_those_of_pyproject():
    """`.ci/lower_bounds` needs a registry, so it is run by hand; what it would install and test is looked at here."""
    script = runpy.run_path(str(ROOT / ".ci/lower_bounds"))
    extras = [name for name in script["TESTS"] if name]
    assert set(extras) == set(PROJECT["optional-dependencies"]) - {"notebooks", "bench"}, (
        "these two add no code of ours"
    )
    assert script["declared"](extras) == declared(*extras)
    tested = {path.split("::")[0] for paths in script["TESTS"].values() for path in paths}
    there = {
        f"tests/{path.name}"
        for path in (ROOT / "tests").iterdir()
        if path.match("test_*.py") or any(path.rglob("test_*.py"))
    }
    assert {path for path in tested if path.count("/") == 1} | set(script["LEFT_OUT"]) | {"tests/helpers"} == there
    assert not set(script["LEFT_OUT"]) & tested and all((ROOT / path).exists() for path in tested)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory) -> Path:
    """The folder in which `kedro package` leaves the wheel and the configuration."""
    folder = tmp_path_factory.mktemp("packaged")
    clone = checkout(folder / "clone")
    # Kedro calls `python -m build`, which would fetch setuptools from a registry.
    shutil.copy(ROOT / "tests/helpers/offline_build/build.py", clone / "src/build.py")
    done = run(clone, "kedro", "package", timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (clone / "dist").iterdir()) == [
        f"a2mae-{a2mae.__version__}-py3-none-any.whl",
        "conf-a2mae.tar.gz",
    ]
    return clone / "dist"


@pytest.fixture(scope="module")
def wheel(packaged) -> Path:
    (made,) = packaged.glob("*.whl")
    return made


@pytest.mark.timeout(1500)  # seconds of one core; a busy machine may take long
def test_the_wheel_holds_all_that_a_checkout_has(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("a2mae/")}
        notes = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    listed = subprocess.run(["git", "ls-files", "src/a2mae"], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = {f"a2mae/project/conf/base/{path.name}" for path in (ROOT / "conf/base").glob("*.yml")}
    brought |= {"a2mae/project/conf/logging.yml", "a2mae/project/conf/no_simulation.json"}
    assert packed == brought | {name.removeprefix("src/") for name in listed.stdout.split() if (ROOT / name).is_file()}
    assert "License-Expression: Apache-2.0" in notes and "Provides-Extra: train" in notes


def closure(names: set[str]) -> set[str]:
    """Installed distributions that these need, themselves included."""
    done: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in done:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system or Python
        done.add(name)
        todo += [name_of(text) for text in needs if "extra ==" not in text]
    return done


INFERENCE = """
import sys
sys.path.insert(0, sys.argv[1])
import a2mae
assert a2mae.__file__.startswith(sys.argv[1]), a2mae.__file__
assert "torch" not in sys.modules
encoder = a2mae.load_encoder(sys.argv[2])
import torch
tokens = encoder.forward_features(torch.ones(1, 3, 32, 32), gsd_m=10.0)
print(tuple(tokens.shape), bool(tokens.isfinite().all()))
"""


@pytest.mark.timeout(1500)  # seconds of one core; a busy machine may take long
def test_the_wheel_alone_is_enough_for_inference(wheel, tmp_path):
    """An environment of the wheel and of what its bare install asks for, nothing else on the path."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in closure(declared()):
        for file in metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(metadata.distribution(name).locate_file(top))
    assert not (site / "kedro").exists() and not (site / "zarr").exists() and not (site / "pydantic").exists()
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1)
    save_pretrained(model, tmp_path / "model")
    command = [sys.executable, "-I", "-S", "-c", INFERENCE, str(site), str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    assert done.stdout.split() == ["(1,", "17,", "64)", "True"]


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param("simulate,ingest", id="first"),  # the quick form: one place, one sensor
        pytest.param(None, id="whole", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(3000)  # seconds (whole: two minutes) of one core; a busy machine may take long
def test_the_packaged_chain_runs_outside_the_repository(packaged, wheel, tmp_path, stages):
    """From the wheel, in an empty folder, with the packaged configuration: no checkout, no git, no network."""
    site, here = tmp_path / "site", tmp_path / "here"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=600)
    here.mkdir()
    with tarfile.open(packaged / "conf-a2mae.tar.gz") as archive:
        archive.extractall(here, filter="data")
    tiny = yaml.safe_load((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8"))
    if stages:
        simulate = tiny["simulate"]
        acquired = {sensor: shown[:2] for sensor, shown in simulate["acquisitions"].items()}
        simulate["acquisitions"] = {sensor: acquired[sensor] if "sentinel" in sensor else [] for sensor in acquired}
        simulate["regions"] = simulate["regions"][1:]
    (here / "conf/local/parameters_tiny.yml").write_text(yaml.safe_dump(tiny))
    log = tmp_path / "sockets.log"
    words = ["-m", "a2mae", *([f"--pipelines={stages}"] if stages else [])]
    done = run(here, "python", *words, source=site, socket_log=log, timeout=2400)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
    record = json.loads((here / "data/lineage/ingest.json").read_text("utf-8"))
    assert record["code"]["commit"] == "unknown" and record["code"]["files"], "no git; the files are known all the same"
    checked = run(here, "python", "-m", "a2mae.lineage", "data/02_intermediate/scenes.parquet", source=site)
    assert checked.returncode == 0 and "made by ingest" in checked.stdout, checked.stdout + checked.stderr
    if stages is None:
        assert 'id="scores"' in (here / "data/08_reporting/report.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1500)  # seconds of one core; a busy machine may take long
def test_a_project_of_ones_own_uses_the_installed_wheel(wheel, tmp_path):
    """In an empty folder: `a2mae init` makes a project, ingests the scenes, and `kedro run` goes on in it."""
    site, here = tmp_path / "site", tmp_path / "own"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=600)
    here.mkdir()
    for date in ("20150926", "20200831"):
        path = tmp_path / f"scenes/m_4709963_se_14_1_{date}.tif"
        write_scene(path, bands=4, gsd=5, dtype="uint8", low=20, high=230)
    done = run(here, "python", "-m", "a2mae.commands", "init", str(tmp_path / "scenes"), "--yes", source=site)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "2 scenes accepted" in done.stdout and (here / "data/mine/08_reporting/scenes.png").is_file()
    done = run(here, "kedro", "run", "--env=mine", "--pipelines=coregister,tag,prune", source=site, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (here / "data/mine/04_feature/pruned_sets.parquet").is_file()
    record = json.loads((here / "data/mine/lineage/ingest.json").read_text("utf-8"))
    assert record["code"]["files"], "the installed files are known without git"


WITHOUT_KEDRO = """
import importlib.util, runpy
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "kedro" else real(name, package)
runpy.run_module("a2mae", run_name="__main__")
"""


def test_a_bare_install_says_what_the_pipelines_need():
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", WITHOUT_KEDRO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "whl[pipeline]'" in done.stderr and "'.[pipeline]'" in done.stderr
