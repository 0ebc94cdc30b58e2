"""Is what lies here what `dvc.lock` of this commit says? `python -m a2mae.dvc_lock`; `--write` makes the lock anew.

`dvc repro` writes the lock of the workspace anew, so the question is asked of the committed one: each output of each
stage is read and hashed as DVC hashes it. It does not matter whether `dvc repro`, `kedro run` or `dvc pull` made them.
Where a stage differs, it is said whether its code or its parameters are other than when the lock was made, and whether
the machine is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from a2mae.files import write_bytes
from a2mae.provenance.record import environment

LOCK_FILE = "dvc.lock"
HEADER = (
    "# Written by `make dvc-lock`: a whole run of the commit before this file's, in a fresh clone, on\n# environment: "
)
IGNORED = {"__pycache__"}
"""Folders that `.dvcignore` leaves out of what a stage depends on."""


class LockError(RuntimeError):
    """There is no lock to compare with, or none can be made; the message says what to do."""


@dataclass(frozen=True)
class Verdict:
    """One stage beside the lock.

    Attributes:
        stage: Its name.
        outputs: How many outputs the lock lists.
        changed: Those whose bytes are others.
        missing: Those that are not there.
        since: Source files and parameters that are not those which the lock was made with.
        locked: Whether the lock knows the stage at all.
    """

    stage: str
    outputs: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    since: tuple[str, ...]
    locked: bool = True

    @property
    def same(self) -> bool:
        """Whether every output has the bytes of the lock."""
        return self.locked and not self.changed and not self.missing


def md5(path: Path) -> str | None:
    """Hash of a file or folder as DVC writes it into its lock; None where nothing is.

    A folder's is that of its sorted list of files, so a file added, lost, renamed or changed shows.
    """
    if path.is_dir():
        listed = [
            {"md5": _file_md5(file), "relpath": file.relative_to(path).as_posix()}
            for file in path.rglob("*")
            if file.is_file() and not IGNORED & set(file.relative_to(path).parts)
        ]
        listed.sort(key=lambda entry: entry["relpath"])
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    return _file_md5(path) if path.is_file() else None


def _file_md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verdicts(root: Path, lock: str) -> Iterator[Verdict]:
    """Each stage of `dvc.yaml` with what the lock says of it, beside what lies in a folder.

    Args:
        root: The project's folder.
        lock: Text of a `dvc.lock`; entries of stages that have gone since are left alone, as DVC does.
    """
    locked = yaml.safe_load(lock)["stages"]
    for name in yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))["stages"]:
        if name not in locked:
            yield Verdict(name, 0, (), (), (), locked=False)
            continue
        stage = locked[name]
        found = {out["path"]: md5(root / out["path"]) for out in stage["outs"]}
        yield Verdict(
            name,
            len(found),
            tuple(out["path"] for out in stage["outs"] if found[out["path"]] not in (None, out["md5"])),
            tuple(path for path, digest in found.items() if digest is None),
            tuple(_since(root, stage)),
        )


def _since(root: Path, stage: Mapping[str, Any]) -> Iterator[str]:
    """Code and parameters that have changed since the lock was made."""
    for dep in stage.get("deps", []):
        if dep["path"].startswith("src/") and md5(root / dep["path"]) != dep["md5"]:
            yield dep["path"]
    for name, values in stage.get("params", {}).items():
        now = yaml.safe_load((root / name).read_text("utf-8")) if (root / name).is_file() else {}
        yield from (f"{name}:{key}" for key, value in values.items() if now.get(key) != value)


def committed(root: Path) -> str:
    """The lock of the last commit.

    Raises:
        LockError: If the commit has none.
    """
    done = subprocess.run(["git", "show", f"HEAD:./{LOCK_FILE}"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LockError(
            f"the last commit has no {LOCK_FILE} ({done.stderr.strip()}): commit one, `make dvc-lock` makes it"
        )
    return done.stdout


def made_on(lock: str) -> dict[str, str]:
    """The environment that a lock's first lines name; empty where they name none."""
    for line in lock.splitlines()[:2]:
        if line.startswith(HEADER.splitlines()[-1]):
            return dict(json.loads(line.removeprefix(HEADER.splitlines()[-1])))
    return {}


def repro_in_clone(root: Path, clone: Path, *, with_lock: bool = True) -> None:
    """Clone the last commit and run `dvc repro` there from nothing.

    Args:
        root: The project's folder.
        clone: Where the clone goes.
        with_lock: Keep the commit's lock there, as a reviewer has it; without, none of a stage that has gone is left.

    Raises:
        LockError: If a stage fails.
    """
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    if not with_lock:
        (clone / LOCK_FILE).unlink(missing_ok=True)
    env = {"WANDB_MODE": "offline", "KEDRO_DISABLE_TELEMETRY": "1"} | os.environ
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    if subprocess.run(["dvc", "repro"], cwd=clone, env=env, check=False).returncode:
        raise LockError("`dvc repro` failed in the fresh clone: see above")


def write(root: Path) -> None:
    """Make `dvc.lock` by a whole `dvc repro` of the last commit in a fresh clone.

    Raises:
        LockError: If what is committed is not what lies here, or a stage fails.
    """
    status = ["git", "status", "--porcelain", "--", f":!{LOCK_FILE}"]
    changed = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True)
    if changed.stdout.strip():
        raise LockError(f"commit first, so that the lock is that of a commit:\n{changed.stdout}")
    with tempfile.TemporaryDirectory(prefix="dvc-lock-") as folder:
        clone = Path(folder) / "clone"
        repro_in_clone(root, clone, with_lock=False)
        text = (clone / LOCK_FILE).read_text("utf-8")
    made_here = json.dumps(environment(with_torch=True))
    write_bytes(root / LOCK_FILE, f"{HEADER}{made_here}\n{text}".encode())


def main(arguments: list[str] | None = None) -> int:
    """Say of each stage here whether its outputs are those of the committed lock, or write the lock."""
    parser = argparse.ArgumentParser(prog="python -m a2mae.dvc_lock", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {LOCK_FILE} by a whole run in a fresh clone")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        if options.write:
            write(root)
            return 0
        lock = committed(root)
    except LockError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = []
    for verdict in verdicts(root, lock):
        found.append(verdict)
        sys.stdout.write("".join(f"{line}\n" for line in _lines(verdict)))
    if all(verdict.same for verdict in found):
        sys.stdout.write(f"{sum(verdict.outputs for verdict in found)} outputs are those of {LOCK_FILE}\n")
        return 0
    sys.stdout.write(_machine(made_on(lock)))
    return 1


def _machine(lock: Mapping[str, str]) -> str:
    """How this environment differs from the lock's; nothing where the lock names none."""
    if not lock:
        return ""
    ours = environment(with_torch=True)
    other = [f"{key} {ours.get(key)} (the lock: {value})" for key, value in lock.items() if ours.get(key) != value]
    return f"this machine: {', '.join(other) or 'like the one that made the lock'}\n"


def _lines(verdict: Verdict) -> Iterator[str]:
    state = f"ok: {verdict.outputs} outputs" if verdict.same else "DIFFERS" if verdict.locked else "NOT IN THE LOCK"
    yield f"{verdict.stage:<14}{state}"
    yield from (f"    CHANGED  {path}" for path in verdict.changed)
    yield from (f"    MISSING  {path}" for path in verdict.missing)
    if verdict.since:
        yield f"    since the lock was made changed: {', '.join(verdict.since)}"


if __name__ == "__main__":
    sys.exit(main())
