"""What computes a result: the files of this package that a module needs, read from its imports, and versions."""

from __future__ import annotations

import ast
import contextlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from a2mae.files import digest_of, file_digest
from a2mae.parallel import cores

PACKAGE = "a2mae"
SOURCE = Path(__file__).parents[2]
"""The folder that holds the package."""

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "rasterio", "odc-geo", "zarr", "pyarrow", "pandas")
_MODEL_LIBRARIES = ("torch", "timm", "lightning", "safetensors")


def files_of(module: str, source: Path = SOURCE) -> set[Path]:
    """Find the files that a module or a package needs: its own and those that they import.

    Imports inside functions count; imports under `if TYPE_CHECKING:` do not. A string that names a package with a
    `__main__` counts, too: `a2mae.training` is started as a process of its own.

    Args:
        module: For example `a2mae.pipelines.pretrain`.
        source: The folder that holds the package `a2mae`.
    """
    todo = [_file(module, source), *source.joinpath(*module.split(".")).glob("*.py")]
    found: set[Path] = set()
    while todo:
        file = todo.pop()
        # The package's own file holds its version and shortcuts: no part of a stage.
        if file is None or file in found or file == source / PACKAGE / "__init__.py":
            continue
        found.add(file)
        if (data := file.with_suffix(".yml")).is_file():  # what a module reads lies beside it under its name
            found.add(data)
        for name in _names(file, source):
            parts = name.split(".")
            todo += [_file(".".join(parts[:length]), source) for length in range(1, len(parts) + 1)]
    return found


@cache
def code_digests(module: str) -> Mapping[str, str]:
    """Return the SHA-256 of each of `files_of` by its path in the package."""
    return {file.relative_to(SOURCE).as_posix(): file_digest(file) for file in sorted(files_of(module))}


def code_digest(module: str) -> str:
    """Return one SHA-256 for a module and everything that it needs."""
    return digest_of(code_digests(module))


@cache
def commit_of(module: str) -> str:
    """Name the last commit that changed a module or what it needs.

    Not HEAD: a later commit that changes other files (documentation, `dvc.lock`) leaves the same bytes behind.

    Returns:
        The commit's hash, with `+changes` where the files differ from it; `unknown` outside a git checkout.
    """
    files = sorted(map(str, files_of(module)))

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", *files]
        return subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")
        return (commit or "unknown") + ("+changes" if commit and git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(*, with_torch: bool) -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute; no name of a machine, person or folder.

    Args:
        with_torch: Also torch's side, the CPU's instruction set and the number of cores: they decide in which order
            sums are added.
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}".lower()}
    for name in (*_LIBRARIES, *(_MODEL_LIBRARIES if with_torch else ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if with_torch:
        import torch  # noqa: PLC0415 (only for stages that use it)

        found |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "cores": str(cores())}
        has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # decides what `precision: auto` is
        found["bfloat16"] = " ".join(name for name, there in has.items() if there and "bf16" in name) or "none"
    return found


def _file(name: str, source: Path) -> Path | None:
    """The file of a module; None where the name is no module but a class or a function."""
    path = source.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _names(file: Path, source: Path) -> frozenset[str]:
    """Dotted names of this package that a file imports or starts as a program."""
    names: set[str] = set()
    for node in _nodes(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            if _file(f"{node.value}.__main__", source):
                names.add(f"{node.value}.__main__")
    return frozenset(name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}."))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            todo += ast.iter_child_nodes(node)
