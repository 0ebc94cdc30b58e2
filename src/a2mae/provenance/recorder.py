"""Writes the records while a chain runs: called by the project's hook, itself without Kedro."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from a2mae.errors import without_places
from a2mae.files import file_digest
from a2mae.provenance.code import commit_of, files_of
from a2mae.provenance.record import (
    FOLDER,
    FORMAT,
    MODEL_FILE,
    SOURCES_FILE,
    Artifact,
    LineageError,
    Record,
    content_of,
    environment,
    write_record,
    write_sealed,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Work:
    """A finished node.

    Attributes:
        node: Its name.
        stage: Its pipeline.
        module: The module of its function: the stage's code is that and what it imports.
        inputs: Path of each dataset on disk that it read.
        outputs: Path of each that it wrote.
        parameters: As it saw them.
        scenes: The scene table, if that is what it made.
        named: Files and folders of the user's that its parameters name and it read, by parameter.
    """

    node: str
    stage: str
    module: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    parameters: Mapping[str, object]
    scenes: pd.DataFrame | None = None
    named: Mapping[str, str] = field(default_factory=dict)


def record(work: Work, data_root: Path) -> Record:
    """Hash what a node read and wrote, seal its model directories, and write its record.

    Args:
        work: The node.
        data_root: Where the stages' folders lie; paths are noted relative to it.
    """
    code = code_record(work.module)
    parameters = cast("dict[str, object]", without_places(work.parameters))
    versions = environment(
        with_torch=any(name.startswith("a2mae/models/") for name in cast(dict[str, str], code["files"]))
    )
    # Where nothing is simulated, the simulation's folder is handed on by name and is not there.
    inputs = {
        name: _artifact(path, data_root, files=False)
        for name, path in work.inputs.items()
        if "://" in path or Path(path).exists()
    }
    for path in work.outputs.values():
        folder = Path(path)
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            _seal_model(
                folder,
                {
                    "node": work.node,
                    "stage": work.stage,
                    "inputs": {name: {"path": entry.path, "sha256": entry.sha256} for name, entry in inputs.items()},
                    "parameters": parameters,
                    "code": code,
                    "environment": versions,
                },
            )
    inputs |= {key: _named(path, data_root) for key, path in work.named.items()}
    made = Record(
        node=work.node,
        stage=work.stage,
        inputs=inputs,
        outputs={name: _artifact(path, data_root, files=True) for name, path in work.outputs.items()},
        parameters=parameters,
        code=code,
        environment=versions,
        sources=None if work.scenes is None else _write_sources(work.scenes, data_root),
    )
    write_record(data_root, made)
    return made


@cache
def code_record(module: str) -> Mapping[str, object]:
    """Commit and file digests of a stage's code."""
    files = sorted(files_of(module, SOURCE))
    return {
        "commit": commit_of(files),
        "files": {file.relative_to(SOURCE).as_posix(): file_digest(file) for file in files},
    }


def _artifact(path: str, data_root: Path, *, files: bool) -> Artifact:
    if "://" in path:
        return Artifact(path, _remote_store_digest(path))
    content = content_of(Path(path), trust_manifest=True)
    if content is None:
        raise LineageError(f"{path} was to be recorded and is not there: was it removed while the stage ran?")
    return Artifact(_relative(path, data_root), content.sha256, content.files if files else {})


def _named(path: str, data_root: Path) -> Artifact:
    """What a parameter names, with the digest of each file: no other record knows them."""
    if not Path(path).exists():  # an address, or GDAL's name for one
        return Artifact(path, None)
    return _artifact(path, data_root, files=True)


def _remote_store_digest(url: str) -> str | None:
    """Manifest hash of an image-set store that lies elsewhere; None for anything else."""
    from a2mae.remote.storage import StoreError  # noqa: PLC0415 (zarr: only where it is asked for)
    from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415 (zarr: only where it is asked for)

    try:
        return ImageSetStore.open(url).manifest_hash
    except StoreError:
        logger.warning("lineage: %s lies elsewhere and is recorded by its address alone", url)
        return None


def _relative(path: str, data_root: Path) -> str:
    return Path(os.path.relpath(path, data_root)).as_posix()


def _seal_model(folder: Path, facts: Mapping[str, object]) -> None:
    """Say in the model directory itself what was run to make it: it may be all that is passed on."""
    (folder / MODEL_FILE).unlink(missing_ok=True)
    content = content_of(folder)
    assert content is not None
    config = json.loads((folder / "config.json").read_text("utf-8"))
    manifest = config.get("data_manifest_hash")
    write_sealed(
        folder / MODEL_FILE, {**facts, "format": FORMAT, "data_manifest_hash": manifest, "files": content.files}
    )


def _write_sources(scenes: pd.DataFrame, data_root: Path) -> Artifact:
    """The files behind the scene table with their digests; those of other machines by address alone."""
    found: dict[str, str | None] = {}
    for assets in scenes["assets"]:
        for asset in json.loads(assets):
            href = str(asset["href"])
            if "://" in href:
                found[href] = None
            elif Path(href).is_file():
                name = _relative(href, data_root)
                found.setdefault(name, None)
                found[name] = found[name] or file_digest(Path(href))
    path = data_root / FOLDER / SOURCES_FILE
    write_sealed(path, {"format": FORMAT, "files": dict(sorted(found.items()))})
    return Artifact(f"{FOLDER}/{SOURCES_FILE}", file_digest(path))
