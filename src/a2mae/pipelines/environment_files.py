"""The files of an environment: each can be read and is read by somebody; no other one's data are written into."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from kedro.config import OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from a2mae.errors import InputError, did_you_mean
from a2mae.pipeline_registry import MOVED

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader


class EnvironmentFilesError(InputError):
    """An environment's files say what nothing reads, or write into another's data."""


_KINDS = ("parameters", "catalog", "globals", "credentials", "logging")


def check_environment_files(loader: AbstractConfigLoader) -> None:
    """Check an environment's files as the command line is checked: Kedro passes over what nothing reads.

    Raises:
        EnvironmentFilesError: If a file is no YAML, or its name or a group is read by nobody, or the environment writes
            into the data of another one; all of these are named, with what is nearest.
    """
    source = Path(loader.conf_source)
    name = loader.env or "local"
    found = read_files(source, name)
    if not (source / name).is_dir() or name == "base":
        return
    problems = [*_unread(source, name, found), *_shared_data(source, name, found)]
    if problems:
        raise EnvironmentFilesError(f"environment '{name}': {'; '.join(problems)}")


def _unread(source: Path, name: str, found: Mapping[Path, Mapping[str, object]]) -> Iterator[str]:
    """Say which files and groups of an environment nothing reads."""
    base = [path for path in found if path.is_relative_to(source / "base")]
    groups = {group for path in base if path.name.startswith(_KINDS[0]) for group in found[path]}
    known = sorted({path.name for path in base})
    for path in _files(source / name):
        shown = path.relative_to(source.parent)
        if not any(part.startswith(_KINDS) for part in path.relative_to(source / name).parts):
            yield (
                f"nothing reads {shown}: {did_you_mean(path.name, known)}the files that are read begin with"
                f" {', '.join(_KINDS)}"
            )
        elif path.name.startswith(_KINDS[0]):
            for group in found[path]:
                if group not in groups and not group.startswith("_"):
                    hint = MOVED.get(group) or f"{did_you_mean(group, groups)}there are {', '.join(sorted(groups))}"
                    yield f"{shown} has the group '{group}', which nothing reads: {hint}"


def _shared_data(source: Path, name: str, found: Mapping[Path, Mapping[str, object]]) -> Iterator[str]:
    """Say whose data an environment would write into; `local` is base with a person's own settings."""
    if name == "local":
        return
    usual = _data_root(source / "base", found)
    own = _data_root(source / name, found) or usual
    if own is None:
        return
    taken = []
    for other in sorted(path.name for path in source.iterdir() if path.is_dir() and path.name not in (name, "local")):
        with suppress(EnvironmentFilesError):  # a broken file of another environment is no matter of this one
            if (_data_root(source / other, found) or usual) == own:
                taken.append(other)
    if taken:
        has_own = any(path.name.startswith("globals") for path in _files(source / name))
        yield (
            f"it writes into {own}, where the outputs of {', '.join(map(repr, taken))} lie"
            f"{'' if has_own else ', because it has no globals.yml'}: put a data_root of its own, for example"
            f" 'data_root: {own}/{name}', into {source.name}/{name}/globals.yml"
        )


def _data_root(folder: Path, found: Mapping[Path, Mapping[str, object]]) -> str | None:
    """Where the files of an environment say that it writes; None where they do not.

    Raises:
        EnvironmentFilesError: If one was not read before and cannot be.
    """
    for path in _files(folder):
        if path.name.startswith("globals"):
            values = found[path] if path in found else read_yaml(path)
            if "data_root" in values:
                return os.path.normpath(os.path.expanduser(str(values["data_root"])))
    return None


def _files(folder: Path) -> list[Path]:
    """The files of a folder of the configuration that Kedro might read."""
    return sorted(path for ending in ("yml", "yaml", "json") for path in folder.rglob(f"*.{ending}"))


def read_files(source: Path, name: str) -> dict[Path, dict[str, object]]:
    """Read every file of an environment and of base.

    Args:
        source: The folder of the configuration.
        name: Of the environment.

    Raises:
        EnvironmentFilesError: For the first that cannot be read.
    """
    return {path: read_yaml(path) for folder in dict.fromkeys(("base", name)) for path in _files(source / folder)}


def read_yaml(path: Path) -> dict[str, object]:
    """Read a file of the configuration as Kedro does, interpolations as they are written.

    Raises:
        EnvironmentFilesError: If it is no YAML, has a key twice, or holds something else than names with values.
    """
    try:
        found = OmegaConf.load(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        why = " ".join(str(getattr(error, "problem", None) or error).split()) or type(error).__name__
        raise EnvironmentFilesError(f"{path} is no YAML that can be read{where} ({why}): correct it") from error
    if not isinstance(found, DictConfig):
        raise EnvironmentFilesError(f"{path} holds a list, expected names with values (name: value): correct it")
    values = OmegaConf.to_container(found)
    return {str(key): value for key, value in cast("dict[object, object]", values).items()}


class NamingConfigLoader(OmegaConfigLoader):
    """Kedro's loader; it reads the globals before any hook is called, and says of a broken file which line alone."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Read a kind of configuration.

        Raises:
            EnvironmentFilesError: If a file of the environment or of base cannot be read; the message names it.
        """
        try:
            found: dict[str, Any] = super().__getitem__(key)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError, OmegaConfBaseException):
            read_files(Path(self.conf_source), self.env or self.default_run_env)
            raise
        return found
