"""The record that a node's run leaves: inputs, outputs, parameters, code and environment, by hash.

One SHA-256 for a file, a folder, or an image-set store.

What decides results beside code and data: versions, and for a model the instructions its sums were made with.

The record that a node's run leaves: what went in and came out, by hash; parameters, code and environment.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from a2mae.files import file_digest, write_bytes
from a2mae.parallel import cores

STORE_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Content:
    """What lies at a path.

    Attributes:
        sha256: Of the file; of a folder, over the digests of its files.
        files: Digest of each file of a folder by its path below it; empty for a file.
    """

    sha256: str
    files: Mapping[str, str]


def digest_of(content: object) -> str:
    """SHA-256 of a JSON value in its one canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_of(path: Path, *, trust_manifest: bool = False) -> Content | None:
    """What lies at a path; None if nothing does.

    Args:
        path: A file or a folder.
        trust_manifest: Take a store's shard digests from the manifest that its builder has just written instead of
            reading terabytes again. A check reads every byte and comes to the same hash.
    """
    if path.is_file():
        return Content(file_digest(path), {})
    if not path.is_dir():
        return None
    declared = _shards(path) if trust_manifest else {}
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = file.relative_to(path).as_posix()
            files[name] = declared.get(name) or file_digest(file)
    return Content(digest_of(files), files)


def _shards(folder: Path) -> dict[str, str]:
    """Shard digests of an image-set store; nothing for any other folder."""
    if not (folder / "zarr.json").is_file() or not (folder / STORE_MANIFEST).is_file():
        return {}
    shards = json.loads((folder / STORE_MANIFEST).read_text("utf-8")).get("shards", {})
    return {key: entry["sha256"] for key, entry in shards.items()}


LIBRARIES = ("numpy", "scipy", "scikit-image", "scikit-learn", "rasterio", "odc-geo", "zarr", "pyarrow", "pandas")
MODEL_LIBRARIES = ("torch", "timm", "lightning", "safetensors")


def environment(*, with_torch: bool) -> dict[str, str]:
    """Versions of Python and of the libraries that compute; no name of a machine, person or folder.

    Args:
        with_torch: Also torch's side, with the CPU's instruction set and how many cores may be used, for each of which
            there is a thread where the parameters name no other number: they decide in which order sums are added.
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}".lower()}
    for name in (*LIBRARIES, *(MODEL_LIBRARIES if with_torch else ())):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if with_torch:
        import torch  # noqa: PLC0415 (only for stages that use it)

        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        found["cores"] = str(cores())
    return found


FOLDER = "lineage"
"""Beside the stages' folders, below the data root."""
MODEL_FILE = "lineage.json"
"""In a model directory: what was run to make it."""
SOURCES_FILE = "sources.json"
"""Beside the records: digests of the source scenes."""
FORMAT = 1


class LineageError(ValueError):
    """A record is missing or not what it was."""


@dataclass(frozen=True)
class Artifact:
    """A dataset on disk.

    Attributes:
        path: Relative to the data root, or a URL.
        sha256: Of its content; None where only its address is known (it lies elsewhere).
        files: Of an output folder, each file's digest.
    """

    path: str
    sha256: str | None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One node's run. Without times and places: the same work leaves the same bytes.

    Attributes:
        node: Its name in the graph.
        stage: The pipeline it belongs to.
        inputs: By dataset, without the digests of single files; what parameters name by parameter, with them.
        outputs: By dataset.
        parameters: By group, as the node saw them, without this machine's folders.
        code: `commit` that last changed the stage's files, and the digest of each by its path in the package.
        environment: Versions that decide results.
        sources: The list of source scenes with their digests, where the node reads any.
    """

    node: str
    stage: str
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]
    parameters: Mapping[str, object]
    code: Mapping[str, object]
    environment: Mapping[str, str]
    sources: Artifact | None = None
    format: int = FORMAT

    @property
    def code_files(self) -> Mapping[str, str]:
        """Digest of each source file."""
        files = self.code["files"]
        assert isinstance(files, Mapping)
        return files


def record_path(data_root: Path, node: str) -> Path:
    """Where a node's record lies."""
    return data_root / FOLDER / f"{node}.json"


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON with the digest of all else as its `identity`, whole or not at all."""
    sealed = {**content, "identity": digest_of(content)}
    write_bytes(path, (json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_sealed(path: Path) -> dict[str, object]:
    """Read what `write_sealed` wrote.

    Raises:
        LineageError: If it is missing, no JSON, or not what was written.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LineageError(f"{path} is missing") from error
    except ValueError as error:
        raise LineageError(f"{path} is changed: it is no JSON any more ({error})") from error
    if not isinstance(content, dict):
        raise LineageError(f"{path} is changed: it is no JSON object")
    if content.pop("identity", None) != digest_of(content):
        raise LineageError(f"{path} is changed: its content does not have the hash that was written with it")
    if content.get("format") != FORMAT:
        raise LineageError(
            f"{path} has format {content.get('format')!r}, this code reads {FORMAT}: run the stage again"
        )
    return content


def write_record(data_root: Path, record: Record) -> None:
    """Write a node's record."""
    write_sealed(record_path(data_root, record.node), asdict(record))


def read_record(path: Path) -> Record:
    """Read a node's record.

    Raises:
        LineageError: As `read_sealed`.
    """
    content = read_sealed(path)
    try:
        for side in ("inputs", "outputs"):
            content[side] = {name: Artifact(**entry) for name, entry in content[side].items()}  # type: ignore[attr-defined]
        content["sources"] = Artifact(**content["sources"]) if content["sources"] else None  # type: ignore[arg-type]
        return Record(**content)  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError) as error:
        raise LineageError(f"{path} is no lineage record: {error}") from error
