"""Write `dvc.yaml` from the registry and the catalog: `python -m a2mae.dvc`, or `--check` whether it is current.

Nothing is declared twice: a stage's inputs, outputs and parameters are those of its Kedro pipeline, the paths are the
catalog's, and the code it depends on is what its nodes import. What the catalog cannot say by itself stands in an
entry's `metadata: dvc:` (`out`: track this folder instead; `persist`: keep what a stopped run left; `kind`: `metrics`,
`plots`, or `untracked` for what another entry tracks).

Metrics lie in DVC's cache like every other output (no `cache: false`): git does not see what the stages write, so
`kedro run` leaves a clean repository, and `dvc metrics diff` finds the numbers of a commit through its `dvc.lock`.
Plots are pictures: DVC's page of them holds no script, so it opens without a network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from kedro.io import DataCatalog

from a2mae.errors import A2maeError
from a2mae.pipeline_registry import module_of
from a2mae.pipelines.chain import tracked
from a2mae.provenance.code import PACKAGE, files_of
from a2mae.provenance.record import SOURCES_FILE, record_path

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

ENV = "base"
_MOST = 2 / 3  # of a folder's files
HEADER = """\
# Written by `make dvc` (python -m a2mae.dvc) from the pipeline registry, the catalog and the nodes' imports: do not
# edit, a test holds it against them. `make repro` runs it.
"""


class StaleDvcError(A2maeError, RuntimeError):
    """`dvc.yaml` is not what the registry and the catalog say."""


def dvc_yaml(root: Path) -> str:
    """Generate the text of `dvc.yaml`.

    Args:
        root: The project's folder.
    """
    from kedro.framework.project import pipelines  # noqa: PLC0415 (Kedro configures itself first)
    from kedro.framework.session import KedroSession  # noqa: PLC0415
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    bootstrap_project(root)
    context = KedroSession.create(project_path=root, env=ENV, save_on_close=False).load_context()
    chain = context.config_loader["parameters"]["chain"]
    data_root = context.config_loader["globals"]["data_root"]
    catalog = context.catalog  # made anew each time it is asked for
    assert isinstance(catalog, DataCatalog)
    stages = {stage: _stage(stage, pipelines[stage], catalog, root, Path(data_root)) for stage in chain}
    content: dict[str, object] = {"stages": stages}
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)


def _stage(name: str, pipeline: Pipeline, catalog: DataCatalog, root: Path, data_root: Path) -> dict[str, object]:
    deps: list[object] = []
    outs: list[object] = []
    special: dict[str, list[object]] = {"metrics": [], "plots": []}
    for dataset in sorted(pipeline.inputs()):
        entry = _tracked(dataset, catalog, root)
        if entry is not None:
            deps.append(entry[0])
    for dataset in sorted(pipeline.all_outputs()):
        entry = _tracked(dataset, catalog, root)
        if entry is not None:
            path, notes = entry
            out: object = {path: {"persist": True}} if notes.get("persist") else path
            special.get(str(notes.get("kind")), outs).append(out)
    records = [record_path(data_root, node.name) for node in pipeline.nodes]
    if "scenes" in pipeline.all_outputs():
        records.append(records[0].with_name(SOURCES_FILE))
    outs += sorted(path.as_posix() for path in records)
    stage: dict[str, object] = {"cmd": f"kedro run --env={ENV} --pipelines={name}"}
    stage["deps"] = [*_unique(deps), *code_of(module_of(name), root / "src")]
    stage["params"] = _params(pipeline, root)
    stage["outs"] = _unique(outs)
    stage |= {kind: _unique(found) for kind, found in special.items()}
    return {key: value for key, value in stage.items() if value}


def _tracked(dataset: str, catalog: DataCatalog, root: Path) -> tuple[str, Mapping[str, object]] | None:
    """Find the path below the project and the DVC notes of a dataset; None for what is not tracked."""
    found = tracked(catalog, dataset)
    if found is None:
        return None
    path = Path(found.path)
    return (path.relative_to(root) if path.is_absolute() else path).as_posix(), found.notes


def _params(pipeline: Pipeline, root: Path) -> list[object]:
    """List parameter groups with the file that holds them; a node that takes all of them depends on whole files."""
    files = sorted((root / "conf" / ENV).glob("parameters_*.yml"))
    owner = {group: file for file in files for group in (yaml.safe_load(file.read_text("utf-8")) or {})}
    if "parameters" in pipeline.inputs():
        return [{file.relative_to(root).as_posix(): None} for file in files]
    groups = sorted({name.removeprefix("params:").split(".")[0] for name in pipeline.inputs() if "params:" in name})
    by_file: dict[str, list[str]] = {}
    for group in groups:
        by_file.setdefault(owner[group].relative_to(root).as_posix(), []).append(group)
    return [{file: keys} for file, keys in by_file.items()]


def _unique(items: list[object]) -> list[object]:
    """Return the items without repetition, in order: two datasets may lie in one tracked folder."""
    kept: list[object] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept


def code_of(module: str, source: Path) -> list[str]:
    """List the files that a module needs, as sorted paths such as `src/a2mae/sensors.py`.

    A folder stands for its files where most of them are needed, so that not every new file changes the list.

    Args:
        module: For example `a2mae.pipelines.pretrain`.
        source: The folder that holds the package `a2mae`.
    """
    files = files_of(module, source)
    folders = {file.parent for file in files if file.parent.name not in (PACKAGE, "pipelines")}
    inside = {folder: set(folder.rglob("*.py")) for folder in folders}
    whole = {folder for folder in folders if len(inside[folder] & files) >= _MOST * len(inside[folder])}
    kept = [path for path in files | whole if not whole & set(path.parents)]
    return sorted(path.relative_to(source.parent).as_posix() for path in kept)


def check(root: Path) -> None:
    """Compare the file with what it would be.

    Raises:
        StaleDvcError: If it differs; the message says how to write it.
    """
    path = root / "dvc.yaml"
    if not path.exists() or path.read_text("utf-8") != dvc_yaml(root):
        raise StaleDvcError("dvc.yaml is not what the registry, the catalog and the imports say: run `make dvc`")


def main(arguments: list[str] | None = None) -> int:
    """Write `dvc.yaml` of the current folder, or check it."""
    parser = argparse.ArgumentParser(prog="python -m a2mae.dvc", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if dvc.yaml is out of date; write nothing")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    if options.check:
        try:
            check(root)
        except StaleDvcError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    else:
        (root / "dvc.yaml").write_text(dvc_yaml(root), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
