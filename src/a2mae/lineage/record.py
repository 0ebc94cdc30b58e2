"""The record that a node's run leaves: what went in and came out, by hash; parameters, code and environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from a2mae.files import write_bytes
from a2mae.lineage.digests import digest_of

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
