"""Follow the records from a model's scores back to the source scenes, and read every byte on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tqdm import tqdm

from a2mae.files import file_digest
from a2mae.provenance import record
from a2mae.provenance.code import SOURCE
from a2mae.provenance.record import FOLDER, MODEL_FILE, Artifact, LineageError, Record

_Makers = Mapping[str, tuple[str, str | None]]  # of a path: the node that wrote it, and the digest of what it wrote
_Look = Callable[[str], Artifact | None]


_BESIDE = ("README.md", "LICENSE", "example.py", "stac-item.json")
"""What is put beside a model when it is passed on (`a2mae export --to hub`)."""


class Findings:
    """What a check found: `lines` to print, and `counts` of what is ok, CHANGED, MISSING, or elsewhere (not read)."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    @property
    def changed(self) -> bool:
        """Tell whether anything is not what it was."""
        return bool(self.counts["CHANGED"] or self.counts["MISSING"])

    def add(self, state: str, what: str, detail: str = "", *, indent: str = "  ", listed: bool = False) -> None:
        """Count one thing, and list it if it is not what it was or `listed` says so."""
        self.counts[state] += 1
        if listed or state in ("CHANGED", "MISSING"):
            self.lines.append(f"{indent}{state:9} {what}" + (f": {detail}" if detail else ""))


def check(target: Path) -> Findings:
    """Verify everything that leads to a model directory, a table or a score, and all that was made from it.

    Args:
        target: A path that some node wrote.

    Raises:
        LineageError: If nothing is known of the target.
    """
    found = Findings()
    is_model = (target / MODEL_FILE).is_file() or (target / "config.json").is_file()
    if is_model:
        _check_model(target, found)
    root = next((folder for folder in target.resolve().parents if (folder / FOLDER).is_dir()), None)
    if root is None and not is_model:
        raise LineageError(f"no folder '{FOLDER}' beside or above {target}: records are written by `kedro run`")
    if root is None:
        found.lines.append(f"note: no folder '{FOLDER}' above {target.name}: only the model itself could be checked")
        return found
    nodes = _read_records(root, found)
    makers = {entry.path: (node.node, entry.sha256) for node in nodes.values() for entry in node.outputs.values()}
    name = target.resolve().relative_to(root).as_posix()
    if name not in makers and not found.lines:
        known = ", ".join(sorted(makers))
        raise LineageError(f"no record says what made {name}; there are records of {known}")
    chain = _chain(makers[name][0], nodes, makers) if name in makers else []
    look = cache(lambda path: record.content_of(root / path, path))
    for node in tqdm(chain, desc="reading", unit="node", disable=None, leave=False):
        _check_node(node, root, makers, look, found)
    code = {version: node.node for node in chain for version in node.code["files"].items()}
    for (file, digest), user in sorted(code.items()):
        now = file_digest(SOURCE / file) if (SOURCE / file).is_file() else None
        state = "MISSING" if now is None else "ok" if now == digest else "CHANGED"
        found.add(state, f"code {file}", f"{user} ran with {'it' if now is None else 'another version'}")
    return found


def _check_model(directory: Path, found: Findings) -> None:
    """Compare a model directory, wherever it lies, with what it says of itself."""
    try:
        saved = record.read_sealed(directory / MODEL_FILE)["files"]
    except LineageError as error:
        state = "CHANGED" if (directory / MODEL_FILE).is_file() else "MISSING"
        found.add(state, f"{directory.name}/{MODEL_FILE}", str(error), indent="")
        return
    now = record.content_of(directory, directory.name)
    assert now is not None
    files = {**saved, MODEL_FILE: now.files[MODEL_FILE]}
    own = {name: digest for name, digest in now.files.items() if name in files or name not in _BESIDE}
    if files != own:
        found.add("CHANGED", directory.name, record.differences(files, own), indent="")


def _read_records(root: Path, found: Findings) -> dict[str, Record]:
    nodes = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        if path.name != record.SOURCES_FILE:
            try:
                nodes[path.stem] = record.read_record(path)
            except LineageError as error:
                found.add("CHANGED", f"{FOLDER}/{path.name}", str(error), indent="")
    return nodes


def _chain(start: str, nodes: Mapping[str, Record], makers: _Makers) -> list[Record]:
    """The nodes after `start` and all before any of those, last made first."""
    before = {
        name: {makers[entry.path][0] for entry in node.inputs.values() if entry.path in makers} - {name}
        for name, node in nodes.items()
    }
    order = list(TopologicalSorter(before).static_order())
    kept = {start}
    for name in order:
        kept |= {name} if before[name] & kept else set()
    for name in reversed(order):
        kept |= before[name] if name in kept else set()
    return [nodes[name] for name in reversed(order) if name in kept]


def _check_node(node: Record, root: Path, makers: _Makers, look: _Look, found: Findings) -> None:
    for entry in node.outputs.values():
        state, detail = _compare(entry, look)
        found.add(state, f"{entry.path}  sha256 {_short(entry.sha256)}", detail, indent="", listed=True)
    commit, plus, changes = node.code["commit"].partition("+")
    groups, inputs = (", ".join(sorted(names)) for names in (node.parameters, node.inputs))
    code = f"code {_short(commit)}{plus}{changes}, parameters {groups or 'none'}"
    found.lines.append(f"          made by {node.node} ({code}) from {inputs or 'parameters alone'}")
    for name, entry in node.inputs.items():
        maker, made = makers.get(entry.path, (None, None))
        if maker is None:
            state, detail = _compare(entry, look)
            found.add(state, entry.path, detail or f"read as {name}; no record says what made it", listed=True)
        elif made != entry.sha256:
            detail = f"{node.node} read {_short(entry.sha256)}, {maker} has since written {_short(made)}"
            found.add("CHANGED", f"{name} ({entry.path})", detail)
    if node.sources is not None:
        try:
            scenes = record.read_sealed(root / node.sources.path)["files"]
        except LineageError as error:
            found.add("CHANGED", node.sources.path, str(error))
            return
        states = {name: _compare(Artifact(name, digest), look)[0] for name, digest in scenes.items()}
        counts = ", ".join(f"{count} files {state}" for state, count in sorted(Counter(states.values()).items()))
        found.lines.append(f"  source scenes: {counts}")
        for name, state in states.items():
            found.add(state, name, "a source scene")


def _compare(entry: Artifact, look: _Look) -> tuple[str, str]:
    """State of what a record names, and what of it is not what it was."""
    if "://" in entry.path or entry.path.startswith("/vsi"):
        if entry.sha256 is None:
            return "elsewhere", "only its address is known"
        try:
            same = record.store_hash(entry.path, verify=True) == entry.sha256
        except LineageError as error:
            return "CHANGED", str(error)
        return ("ok", "") if same else ("CHANGED", "another store lies there")
    now = look(entry.path)
    if now is None:
        return "MISSING", "fetch it with `dvc pull` or run the stage again"
    same = now.sha256 == entry.sha256
    return ("ok", "") if same else ("CHANGED", record.differences(entry.files, now.files) if entry.files else "")


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else digest[:12]
