"""The record that a node leaves: what it read and wrote, parameters, code and environment, everything by hash.

A record holds no times and no places, so the same work leaves the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from a2mae.errors import InputError, without_places, without_secrets
from a2mae.files import digest_of, file_digest, utf8, write_bytes
from a2mae.provenance.code import code_digests, commit_of, environment

if TYPE_CHECKING:
    import pandas as pd

FOLDER, MODEL_FILE, SOURCES_FILE = "lineage", "lineage.json", "sources.json"
"""Records, below the data root; what a model directory says of itself; beside the records, digests of the scenes."""
_FORMAT = 1


class LineageError(InputError):
    """A record, or what it names, is missing or not what it was."""


@dataclass(frozen=True)
class Artifact:
    """A file, a folder or an image-set store.

    Attributes:
        path: Relative to the data root, or a URL.
        sha256: Of the file; of a folder, over the digests of its files; None where only the address is known.
        files: Digest of each file of a folder, by its path in it.
    """

    path: str
    sha256: str | None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One node's run.

    Attributes:
        node: Its name in the graph.
        stage: Pipeline it belongs to.
        inputs: By dataset; what parameters name, by parameter.
        outputs: By dataset.
        parameters: By group, as the node saw them, without this machine's folders.
        code: Digests of the stage's source files (`files`), and the last `commit` that changed one of them.
        environment: Versions that decide results.
        sources: The list of source scenes with their digests, where the node reads any.
    """

    node: str
    stage: str
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]
    parameters: Mapping[str, object]
    code: Mapping[str, Any]
    environment: Mapping[str, str]
    sources: Artifact | None = None
    format: int = _FORMAT


def record(
    data_root: Path,
    node: str,
    module: str,
    *,
    stage: str,
    inputs: Mapping[str, Artifact],
    outputs: Mapping[str, str],
    parameters: Mapping[str, object],
    named: Mapping[str, str] | None = None,
    scenes: pd.DataFrame | None = None,
) -> Record:
    """Hash what a node read and wrote, describe its models in their own directories, and write its record.

    Args:
        data_root: Where the stages' folders lie.
        node: Name.
        module: Module of the node's function: the stage's code is that and what it imports.
        stage: Pipeline.
        inputs: Each dataset on disk that it read, as `read_input` gave it.
        outputs: Path of each that it wrote.
        parameters: As it saw them.
        named: Files and folders that its parameters name and it read, by parameter.
        scenes: The scene table, if that is what it made.
    """
    code = {"commit": commit_of(module), "files": code_digests(module)}
    facts: dict[str, Any] = {
        "node": node,
        "stage": stage,
        "inputs": {name: replace(artifact, files={}) for name, artifact in inputs.items()},
        "parameters": without_places(parameters),
        "code": code,
        "environment": environment(with_torch=any(name.startswith("a2mae/models/") for name in code["files"])),
    }
    for folder in map(Path, outputs.values()):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            _describe_model(folder, facts)
    for name, path in (named or {}).items():  # what is not there is an address, or GDAL's name for one
        there = Path(path).exists()
        facts["inputs"][name] = _artifact(path, data_root) if there else Artifact(without_secrets(path), None)
    made = {name: _artifact(path, data_root) for name, path in outputs.items()}
    found = Record(**facts, outputs=made, sources=None if scenes is None else _write_sources(scenes, data_root))
    write_sealed(record_path(data_root, node), asdict(found))
    return found


class ChangedInputError(LineageError):
    """A dataset is not what the stage before has written."""


def read_input(data_root: Path, name: str, path: str, maker: str | None) -> Artifact | None:
    """Hash a dataset that a node is about to read, and compare it with what its maker wrote.

    An image-set store is taken by its manifest: each shard is compared with that when it is read.

    Args:
        data_root: Where the stages' folders lie.
        name: Of the dataset.
        path: Where it lies.
        maker: The node that writes it; None if no node does.

    Returns:
        None where nothing is there: without a simulation, its folder is handed on by name alone.

    Raises:
        ChangedInputError: If its bytes are not those that the maker wrote.
    """
    if "://" not in path and not Path(path).exists():
        return None
    found = _artifact(path, data_root)
    known = None if maker is None else record_path(data_root, maker)
    if known is None or not known.exists():
        return found
    made = read_record(known)
    written = made.outputs.get(name)
    if written is not None and written.path == found.path and written.sha256 != found.sha256:
        what = f": {differences(written.files, found.files)}" if written.files and found.files else ""
        raise ChangedInputError(
            f"{path} ('{name}') is not what the stage {made.stage} has written{what}. Make it again:"
            f" --pipelines={made.stage}; where you have changed it on purpose, remove {known} first"
        )
    return found


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name the files of a folder that are not as they were, by the digests of all."""
    words = [
        f"{name} is {'gone' if name not in now else 'changed' if name in before else 'new'}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    return "; ".join(words[:10]) + (f"; and {len(words) - 10} more" if len(words) > 10 else "")


def record_path(data_root: Path, node: str) -> Path:
    """Return where a node's record lies."""
    return data_root / FOLDER / f"{node}.json"


def read_record(path: Path) -> Record:
    """Read a node's record.

    Raises:
        LineageError: If it is missing or not what was written.
    """
    return TypeAdapter(Record).validate_python(read_sealed(path))


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON with the digest of all else as its `identity`."""
    sealed = {**content, "identity": digest_of(content)}
    write_bytes(path, utf8(json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n"))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        LineageError: If it is missing or not what was written.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LineageError(f"{path} is missing or changed: it cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or content.pop("identity", None) != digest_of(content):
        raise LineageError(f"{path} is changed: its content does not have the hash that was written with it")
    if content.get("format") != _FORMAT:
        raise LineageError(f"{path} has not the format {_FORMAT} that this code reads: run the stage again")
    return content


def content_of(path: Path, name: str, *, trust_manifest: bool = False) -> Artifact | None:
    """Hash what lies at a path; None if nothing does.

    Args:
        path: A file or a folder.
        name: Path of the artifact.
        trust_manifest: Take a store's digests from the manifest that its builder has just written: a check reads the
            terabytes and comes to the same hash.
    """
    if not path.is_dir():
        return Artifact(name, file_digest(path)) if path.is_file() else None
    shards: dict[str, dict[str, str]] = {}
    if trust_manifest and (path / "zarr.json").is_file() and (path / "manifest.json").is_file():
        with contextlib.suppress(ValueError):  # torn: its own digest says so
            shards = json.loads((path / "manifest.json").read_text("utf-8")).get("shards", {})
    found = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    files = {key: shards[key]["sha256"] if key in shards else file_digest(file) for key, file in found.items()}
    return Artifact(name, digest_of(files), files)


def store_hash(url: str, *, verify: bool) -> str:
    """Return the manifest hash of an image-set store that lies elsewhere.

    Raises:
        LineageError: If there is none, or if it is to be verified and a shard is not what it was.
    """
    from a2mae.remote.storage import StoreError  # noqa: PLC0415 (zarr: only where it is asked for)
    from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415 (zarr: only where it is asked for)

    try:
        store = ImageSetStore.open(url)
        if verify:
            store.verify()
        return store.manifest_hash
    except StoreError as error:
        raise LineageError(str(error)) from error


def _artifact(path: str, data_root: Path) -> Artifact:
    if "://" in path:
        with contextlib.suppress(LineageError):  # of anything but a store, the address is all that is known
            return Artifact(path, store_hash(path, verify=False))
        return Artifact(path, None)
    found = content_of(Path(path), _relative(path, data_root), trust_manifest=True)
    if found is None:
        raise LineageError(f"{path} was to be recorded and is not there: was it removed while the stage ran?")
    return found


def _relative(path: str, data_root: Path) -> str:
    return Path(os.path.relpath(path, data_root)).as_posix()


def _describe_model(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say in a model directory what was run to make it: it may be all that is passed on."""
    (folder / MODEL_FILE).unlink(missing_ok=True)
    content = content_of(folder, MODEL_FILE)
    assert content is not None
    inputs = {name: {"path": entry.path, "sha256": entry.sha256} for name, entry in facts["inputs"].items()}
    manifest = json.loads((folder / "config.json").read_text("utf-8")).get("data_manifest_hash")
    own = {"format": _FORMAT, "inputs": inputs, "data_manifest_hash": manifest, "files": content.files}
    write_sealed(folder / MODEL_FILE, {**facts, **own})


def _write_sources(scenes: pd.DataFrame, data_root: Path) -> Artifact:
    """The files behind the scene table with their digests; those of other machines by address alone."""
    hrefs = {str(asset["href"]) for assets in scenes["assets"] for asset in json.loads(assets)}
    local = {href for href in hrefs if "://" not in href}
    files: dict[str, str | None] = {without_secrets(href): None for href in hrefs - local}
    files |= {_relative(href, data_root): file_digest(Path(href)) for href in local if Path(href).is_file()}
    path = data_root / FOLDER / SOURCES_FILE
    write_sealed(path, {"format": _FORMAT, "files": files})
    return Artifact(f"{FOLDER}/{SOURCES_FILE}", file_digest(path))
