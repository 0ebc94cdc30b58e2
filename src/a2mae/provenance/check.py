"""Follows the records from a model's scores back to the source scenes and reads every byte on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from tqdm import tqdm

from a2mae.files import file_digest
from a2mae.provenance.record import (
    FOLDER,
    MODEL_FILE,
    SOURCES_FILE,
    Artifact,
    Content,
    LineageError,
    Record,
    content_of,
    read_record,
    read_sealed,
)

State = Literal["ok", "changed", "missing", "elsewhere"]
SOURCE = Path(__file__).parents[2]


@dataclass
class Finding:
    """One thing of the chain and whether it is what it was.

    Attributes:
        what: A path, or what else was checked.
        state: `elsewhere` for what lies on another machine and cannot be read here.
        detail: Which file of it is not what it was, and who says so.
    """

    what: str
    state: State
    detail: str = ""


@dataclass
class Link:
    """One node of the chain with what was found of it.

    Attributes:
        record: What it left.
        outputs: Its outputs.
        code: Its source files.
        inputs: Inputs that are not what its record says, or that nobody's record explains.
        sources: Source scenes, where it read any.
    """

    record: Record
    outputs: list[Finding] = field(default_factory=list)
    code: list[Finding] = field(default_factory=list)
    inputs: list[Finding] = field(default_factory=list)
    sources: list[Finding] = field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        """All of them."""
        yield from (*self.outputs, *self.inputs, *self.sources, *self.code)


@dataclass
class Chain:
    """From the scores (first) back to the source scenes (last).

    Attributes:
        links: Nodes.
        broken: Records that cannot be used, and what the model directory says of itself.
        notes: What differs without being a change: another version of a library.
    """

    links: list[Link] = field(default_factory=list)
    broken: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """Everything that was looked at."""
        return [*self.broken, *(finding for link in self.links for finding in link.findings())]

    @property
    def changed(self) -> list[Finding]:
        """What is not what it was."""
        return [finding for finding in self.findings() if finding.state in ("changed", "missing")]


def find_data_root(path: Path) -> Path:
    """The nearest folder above that holds records.

    Raises:
        LineageError: If there is none.
    """
    for folder in path.resolve().parents:
        if (folder / FOLDER).is_dir():
            return folder
    raise LineageError(f"no folder '{FOLDER}' beside or above {path}: records are written by `kedro run`")


def check(target: Path, *, quiet: bool = True) -> Chain:
    """Verify everything that leads to a model directory, a table or a score, and all that was made from it.

    Args:
        target: A path that some node wrote.
        quiet: Without progress bar.

    Raises:
        LineageError: If nothing is known of the target.
    """
    chain = Chain()
    model = (
        _check_model(target, chain) if (target / MODEL_FILE).is_file() or (target / "config.json").is_file() else None
    )
    try:
        root = find_data_root(target)
    except LineageError:
        if model is None:
            raise
        chain.notes.append(f"there is no folder '{FOLDER}' above {target.name}: only the model itself could be checked")
        return chain
    records = _read_all(root, chain)
    makers = {entry.path: record for record in records for entry in record.outputs.values()}
    resolved = target.resolve()
    name = resolved.relative_to(root).as_posix()
    start = makers.get(name)
    if start is None:
        if chain.broken:
            return chain
        known = ", ".join(sorted(makers))
        raise LineageError(f"no record says what made {name}; there are records of {known}")
    seen: dict[str, Content | None] = {}
    read_code: set[tuple[str, str]] = set()
    ordered = _ordered(_related(start, records, makers), makers)
    for record in tqdm(ordered, desc="reading", unit="node", disable=quiet, leave=False):
        chain.links.append(_check_link(record, root, makers, seen, read_code))
    return chain


def _read_all(root: Path, chain: Chain) -> list[Record]:
    records = []
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            if path.name != SOURCES_FILE:
                records.append(read_record(path))
        except LineageError as error:
            chain.broken.append(Finding(f"{FOLDER}/{path.name}", "changed", str(error)))
    return records


def _related(start: Record, records: list[Record], makers: Mapping[str, Record]) -> set[str]:
    """Names of the nodes after `start`, and of all before any of those."""
    kept = {start.node}
    grown = True
    while grown:  # downstream: whoever reads what one of them wrote
        made = {entry.path for record in records if record.node in kept for entry in record.outputs.values()}
        new = {r.node for r in records if any(entry.path in made for entry in r.inputs.values())} - kept
        grown = bool(new)
        kept |= new
    todo = [record for record in records if record.node in kept]
    while todo:
        for entry in todo.pop().inputs.values():
            before = makers.get(entry.path)
            if before is not None and before.node not in kept:
                kept.add(before.node)
                todo.append(before)
    return kept


def _ordered(names: set[str], makers: Mapping[str, Record]) -> list[Record]:
    """Last made first: no node comes after one that it was made from."""
    records = {record.node: record for record in makers.values() if record.node in names}
    result: list[Record] = []

    def visit(record: Record) -> None:
        if record in result:
            return
        for entry in record.inputs.values():
            before = makers.get(entry.path)
            if before is not None and before.node in records and before is not record:
                visit(before)
        result.append(record)

    for record in records.values():
        visit(record)
    return result[::-1]


def _check_link(
    record: Record,
    root: Path,
    makers: Mapping[str, Record],
    seen: dict[str, Content | None],
    read_code: set[tuple[str, str]],
) -> Link:
    link = Link(record)
    for entry in record.outputs.values():
        link.outputs.append(_check_output(entry, root, seen))
    for name, entry in record.inputs.items():
        maker = makers.get(entry.path)
        made = None if maker is None else next(e.sha256 for e in maker.outputs.values() if e.path == entry.path)
        if maker is None:
            finding = _check_output(entry, root, seen)
            finding.detail = finding.detail or f"read as {name}; no record says what made it"
            link.inputs.append(finding)
        elif made != entry.sha256:
            detail = f"{record.node} read {_short(entry.sha256)}, {maker.node} has since written {_short(made)}"
            link.inputs.append(Finding(f"{name} ({entry.path})", "changed", detail))
    if record.sources is not None:
        link.sources = _check_sources(record.sources, root)
    for name, digest in record.code_files.items():
        file = SOURCE / name
        if (name, digest) in read_code:
            continue
        read_code.add((name, digest))
        if not file.is_file():
            link.code.append(Finding(f"code {name}", "missing", "the stage ran with it"))
        elif file_digest(file) != digest:
            link.code.append(Finding(f"code {name}", "changed", f"{record.node} ran with another version"))
        else:
            link.code.append(Finding(f"code {name}", "ok"))
    return link


def _check_output(entry: Artifact, root: Path, seen: dict[str, Content | None]) -> Finding:
    if "://" in entry.path or entry.path.startswith("/vsi"):
        return _check_remote(entry)
    if entry.path not in seen:
        seen[entry.path] = content_of(root / entry.path)
    content = seen[entry.path]
    if content is None:
        return Finding(entry.path, "missing", "fetch it with `dvc pull` or run the stage again")
    if content.sha256 == entry.sha256:
        return Finding(entry.path, "ok")
    return Finding(entry.path, "changed", _difference(entry.files, content.files))


def _check_remote(entry: Artifact) -> Finding:
    """An image-set store elsewhere is read through; of anything else only the address is known."""
    if entry.sha256 is None:
        return Finding(entry.path, "elsewhere", "only its address is known")
    from a2mae.remote.storage import StoreError  # noqa: PLC0415 (zarr: only where it is asked for)
    from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415 (zarr: only where it is asked for)

    try:
        store = ImageSetStore.open(entry.path)
        store.verify()
    except StoreError as error:
        return Finding(entry.path, "changed", str(error))
    same = store.manifest_hash == entry.sha256
    return Finding(entry.path, "ok" if same else "changed", "" if same else "another store lies there")


def _check_sources(entry: Artifact, root: Path) -> list[Finding]:
    try:
        files = cast("dict[str, str | None]", read_sealed(root / entry.path)["files"])
    except LineageError as error:
        return [Finding(entry.path, "changed", str(error))]
    found = []
    for name, digest in files.items():
        path = root / name
        if digest is None:
            found.append(Finding(name, "elsewhere", "a scene of another machine is known by its address alone"))
        elif not path.is_file():
            found.append(Finding(name, "missing", "a source scene"))
        else:
            found.append(Finding(name, "ok" if file_digest(path) == digest else "changed", "a source scene"))
    return found


def _check_model(directory: Path, chain: Chain) -> Mapping[str, object]:
    """What a model directory says of itself, wherever it lies."""
    try:
        sealed = read_sealed(directory / MODEL_FILE)
    except LineageError as error:
        state: State = "changed" if (directory / MODEL_FILE).is_file() else "missing"
        chain.broken.append(Finding(f"{directory.name}/{MODEL_FILE}", state, str(error)))
        return {}
    files = cast("dict[str, str]", sealed["files"])
    content = content_of(directory)
    assert content is not None
    now = {name: digest for name, digest in content.files.items() if name != MODEL_FILE}
    for name in sorted(files.keys() | now.keys()):
        if files.get(name) != now.get(name):
            what = "is not what was saved" if name in files and name in now else "was not saved with the model"
            state = "missing" if name not in now else "changed"
            chain.broken.append(Finding(f"{directory.name}/{name}", state, "is gone" if name not in now else what))
    return sealed


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which files of a folder are not what they were."""
    if not before:
        return "" if not now else "its files are not what they were"
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    words = [
        f"{name} {'is gone' if name not in now else 'is new' if name not in before else 'is changed'}" for name in names
    ]
    return "; ".join(words[:10]) + (f"; and {len(words) - 10} more" if len(words) > 10 else "")


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else digest[:12]
