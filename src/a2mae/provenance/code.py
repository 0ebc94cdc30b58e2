"""Which files of this package a module depends on, read from its imports without running them."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "a2mae"
MOST = 2 / 3


def code_of(package: str, source: Path) -> list[str]:
    """Files that a stage's code consists of, as paths that begin with the source folder's name.

    Imports inside functions count. So does a string that is a package with a `__main__` (a process is started as
    `python -m a2mae.training`). A folder stands for its files where most of them are needed: shorter, and it does not
    change with every new file.

    Args:
        package: For example `a2mae.pipelines.pretrain`.
        source: The folder that holds the package `a2mae`.

    Returns:
        Sorted POSIX paths such as `src/a2mae/sensors.py` or `src/a2mae/models`.
    """
    return sorted(path.relative_to(source.parent).as_posix() for path in _collapsed(files_of(package, source)))


def files_of(package: str, source: Path) -> set[Path]:
    """The same, each file for itself.

    Args:
        package: For example `a2mae.pipelines.pretrain`.
        source: The folder that holds the package `a2mae`.
    """
    todo = [_file(package, source), *_folder(package, source).glob("*.py")]
    found: set[Path] = set()
    # The package's own file: its version and lazy conveniences are no part of a stage.
    root = source / PACKAGE / "__init__.py"
    while todo:
        file = todo.pop()
        if file is None or file in found or file == root:
            continue
        found.add(file)
        if (data := file.with_suffix(".yml")).is_file():  # what a module reads lies beside it under its name
            found.add(data)
        for name in _names(file, source):
            todo.append(_file(name, source))
            todo += [_file(parent, source) for parent in _parents(name)]
    return found


def code_digest(package: str, source: Path) -> str:
    """SHA-256 over the names and bytes of `files_of`.

    Args:
        package: For example `a2mae.pipelines.evaluate`.
        source: The folder that holds the package `a2mae`.
    """
    digest = hashlib.sha256()
    for file in sorted(files_of(package, source)):
        digest.update(f"{file.relative_to(source).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def commit_of(files: Iterable[Path]) -> str:
    """The last commit that changed any of these files, with `+changes` where they differ from it.

    Not HEAD: a later commit that changes other files (documentation, `dvc.lock`) leaves the same bytes behind.

    Returns:
        The commit's hash, or `unknown` outside a git checkout.
    """
    paths = sorted(str(file) for file in files)
    folder = Path(paths[0]).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments, "--", *paths], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")
        return (commit or "unknown") + ("+changes" if commit and git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _folder(name: str, source: Path) -> Path:
    return source.joinpath(*name.split("."))


def _file(name: str, source: Path) -> Path | None:
    """The file of a module, or None where the name is no module (a class, a function)."""
    folder = _folder(name, source)
    for path in (folder.with_suffix(".py"), folder / "__init__.py"):
        if path.is_file():
            return path
    return None


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


@cache
def _names(file: Path, source: Path) -> frozenset[str]:
    """Dotted names of this package that a file mentions in imports or as a program to start."""
    names: set[str] = set()
    for node in _nodes(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            if _file(f"{node.value}.__main__", source):
                names |= {node.value, f"{node.value}.__main__"}
    return frozenset(name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}."))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    todo = [tree]
    while todo:
        for child in ast.iter_child_nodes(todo.pop()):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            yield child
            todo.append(child)


def _collapsed(files: set[Path]) -> set[Path]:
    """Folders in place of their files where at least `MOST` of them are needed."""
    result = set(files)
    for folder in {file.parent for file in files}:
        inside = set(folder.rglob("*.py"))
        if len(inside & files) >= MOST * len(inside) and folder.name not in (PACKAGE, "pipelines"):
            result = {path for path in result if folder not in path.parents} | {folder}
    return {path for path in result if not any(parent in result for parent in path.parents)}
