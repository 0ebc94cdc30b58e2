"""Compare outputs with a `dvc.lock`, and make the lock of a commit by a whole run in a fresh clone."""

from __future__ import annotations

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
from a2mae.provenance.code import environment
from a2mae.provenance.record import LineageError
from a2mae.provenance.reference import REFERENCE_FILE, compare, write_reference

LOCK_FILE = "dvc.lock"
HEADER = (
    "# Written by `make dvc-lock`: a whole run of the commit before this file's, in a fresh clone, on\n# environment: "
)


@dataclass(frozen=True)
class Verdict:
    """One stage beside the lock.

    Attributes:
        stage: Its name.
        outputs: How many outputs the lock lists; 0 where it does not know the stage.
        within: Which of them have other bytes and values within their tolerance, with the largest difference.
        wrong: Which of them are changed or missing.
        since: Source files and parameters that are not those which the lock was made with.
    """

    stage: str
    outputs: int = 0
    within: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    since: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether every output has the bytes of the lock, or values within their tolerance."""
        return bool(self.outputs) and not self.wrong

    def __str__(self) -> str:
        same = self.outputs - len(self.within)
        state = f"ok: {same} outputs" + (f" of the same bytes, {len(self.within)} within tolerance" * bool(self.within))
        if not self.holds:
            state = "DIFFERS" if self.outputs else "NOT IN THE LOCK"
        since = [f"since the lock was made changed: {', '.join(self.since)}"] if self.since else []
        return "\n    ".join([f"{self.stage:<14}{state}", *self.within, *self.wrong, *since])


def verdicts(root: Path, lock: str, reference: Mapping[str, Any] | None = None) -> Iterator[Verdict]:
    """Compare what each stage of `dvc.yaml` has written with a lock.

    Args:
        root: The project's folder.
        lock: Text of a `dvc.lock`; entries of stages that have gone since are left alone, as DVC does.
        reference: Values of the outputs, of `read_reference`; None: other bytes are another output.
    """
    locked = yaml.safe_load(lock)["stages"]
    for name in yaml.safe_load((root / "dvc.yaml").read_text("utf-8"))["stages"]:
        stage = locked.get(name, {"outs": []})
        within, wrong = list[str](), list[str]()
        for out in stage["outs"]:
            path, md5 = out["path"], _md5(root / out["path"])
            if md5 is None:
                wrong.append(f"MISSING  {path}")
            elif md5 == out["md5"]:
                continue
            elif reference is None or path not in reference:
                wrong.append(f"CHANGED  {path}")
            else:
                found = compare(root, path, reference[path])
                (within if found.within else wrong).append(
                    f"{'within ' if found.within else 'CHANGED'}  {path}: {found.told}"
                )
        yield Verdict(name, len(stage["outs"]), tuple(sorted(within)), tuple(sorted(wrong)), tuple(_since(root, stage)))


def _since(root: Path, stage: Mapping[str, Any]) -> Iterator[str]:
    """Code and parameters that have changed since a stage was locked."""
    for dep in stage.get("deps", []):
        if dep["path"].startswith("src/") and _md5(root / dep["path"]) != dep["md5"]:
            yield dep["path"]
    for name, values in stage.get("params", {}).items():
        now = yaml.safe_load((root / name).read_text("utf-8")) if (root / name).is_file() else {}
        yield from (f"{name}:{key}" for key, value in values.items() if now.get(key) != value)


def _md5(path: Path) -> str | None:
    """Hash of a file or folder as DVC writes it into its lock (a folder's: of its list of files); None for nothing."""
    if path.is_dir():
        files = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
        names = {name.as_posix(): file for name, file in files.items() if "__pycache__" not in name.parts}  # .dvcignore
        listed = [{"md5": _md5(names[name]), "relpath": name} for name in sorted(names)]
        return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def committed(root: Path, name: str = LOCK_FILE) -> str:
    """Return the lock of the last commit, or what lies beside it.

    Raises:
        LineageError: If the commit has none.
    """
    done = subprocess.run(["git", "show", f"HEAD:./{name}"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LineageError(f"the last commit has no {name} ({done.stderr.strip()}): `make dvc-lock` makes it")
    return done.stdout


def made_on(lock: str) -> dict[str, str]:
    """Return the environment that a lock's first lines name; empty where they name none."""
    begin = HEADER.splitlines()[-1]
    found = [line.removeprefix(begin) for line in lock.splitlines()[:2] if line.startswith(begin)]
    return dict(json.loads(found[0])) if found else {}


def repro_in_clone(root: Path, clone: Path) -> None:
    """Clone the last commit and run `dvc repro` there from nothing.

    Args:
        root: The project's folder.
        clone: Where the clone goes; its lock has no entries of stages that have gone.

    Raises:
        LineageError: If a stage fails.
    """
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    (clone / LOCK_FILE).unlink(missing_ok=True)
    env = {"WANDB_MODE": "offline", "KEDRO_DISABLE_TELEMETRY": "1"} | os.environ
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(clone / "src")}
    if subprocess.run(["dvc", "repro"], cwd=clone, env=env, check=False).returncode:
        raise LineageError("`dvc repro` failed in the fresh clone: see above")


def write(root: Path) -> None:
    """Make `dvc.lock` and `dvc.reference.json` by a whole run of the last commit in a fresh clone.

    Raises:
        LineageError: If what is committed is not what lies here, or a stage fails.
    """
    status = ["git", "status", "--porcelain", "--", f":!{LOCK_FILE}", f":!{REFERENCE_FILE}"]
    changed = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True).stdout
    if changed.strip():
        raise LineageError(f"commit first, so that the lock is that of a commit:\n{changed}")
    with tempfile.TemporaryDirectory(prefix="dvc-lock-") as folder:
        repro_in_clone(root, Path(folder) / "clone")
        text = (Path(folder) / "clone" / LOCK_FILE).read_text("utf-8")
        outputs = [out["path"] for stage in yaml.safe_load(text)["stages"].values() for out in stage["outs"]]
        write_reference(root / REFERENCE_FILE, Path(folder) / "clone", outputs)
    write_bytes(root / LOCK_FILE, f"{HEADER}{json.dumps(environment(with_torch=True))}\n{text}".encode())
