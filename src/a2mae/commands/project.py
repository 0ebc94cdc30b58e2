"""The project that `a2mae init` works in: the one around it, or a small new one that uses the installed package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import a2mae
from a2mae.errors import A2maeError, InputError, did_you_mean, is_address, names_nothing, plain_text
from a2mae.files import make_folder, whole_file

if TYPE_CHECKING:
    from kedro.config import OmegaConfigLoader
    from kedro.io import DataCatalog

_PACKAGED = Path(a2mae.__file__).parent / "project"
_CHECKOUT = Path(a2mae.__file__).parents[2]
_PYPROJECT = """\
# A Kedro project around the installed package a2mae: its code is updated with pip, its configuration is conf/.
[tool.kedro]
package_name = "a2mae"
project_name = {name}
kedro_init_version = "{kedro}"
source_dir = "."
"""
_IGNORED = """\
data/
conf/local/
.venv/
.viz/
wandb/
__pycache__/
"""
_README = """\
# {name}

Image sets and a foundation model of own scenes, by a2mae {version}. Three commands, in this folder:

```sh
a2mae init PATH --name NAME                     # a folder of scenes becomes conf/NAME, its scene table and a picture
kedro run --env=NAME --pipelines=coregister,tag,prune
kedro run --env=NAME                            # everything, to a pretrained model and its report
```

`conf/base` holds every parameter with a comment, as a2mae {version} brought it; an environment states what differs.
Outputs lie in `data/NAME/`.
"""


def local_path(text: str) -> Path:
    """Read an argument that names a file or a folder, before a `Path` takes a slash from an address.

    A `~` that no shell has replaced is the home of its user; where there is no such user, it is a letter of the name.

    Raises:
        A2maeError: If it is an address, empty, or no text; no ValueError, whose text argparse would replace by the
            argument as typed.
    """
    if is_address(text):
        raise A2maeError(f"{text} is an address, and a file or folder of this machine is needed: download it first")
    if why := names_nothing(text):
        raise A2maeError(f"{text!a} {why}")
    return Path(os.path.expanduser(text))


_LONGEST_LICENCE = 200


def one_line(text: str) -> str:
    """Read an argument whose words are written into cards and JSON as they are.

    Raises:
        A2maeError: If it is no line of letters and signs, or a long one; as in `local_path` no ValueError.
    """
    if not text.isprintable() or not 0 < len(text.strip()) <= _LONGEST_LICENCE:
        raise A2maeError(f"{text[:80]!a} is no line of 1 to {_LONGEST_LICENCE} letters and signs: name it in words")
    return text


def find_project(start: Path) -> Path | None:
    """Find the project that a folder lies in: the nearest above it with `[tool.kedro]` in its pyproject.toml.

    Args:
        start: The folder.

    Returns:
        None where there is none.

    Raises:
        InputError: If a pyproject.toml on the way is no TOML.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            tools = tomllib.loads(file.read_text("utf-8")).get("tool")
        except ValueError as error:
            raise InputError(f"{file} is no TOML: {error}") from error
        if isinstance(tools, dict) and "kedro" in tools:
            return folder
    return None


def make_project(folder: Path, scenes: Path) -> list[str]:
    """Make a small project: conf/, .gitignore, pyproject.toml, README.md. Data folders come with the first run.

    Args:
        folder: Where; what is there stays, and nothing of these names may be.
        scenes: The folder of scenes, which the project must not lie in: it would be taken for scenes.

    Returns:
        What was made.

    Raises:
        InputError: If the folder is not fit for it.
    """
    here, there = folder.resolve(), scenes.resolve()
    if here == there or there in here.parents:
        raise InputError(f"{folder} holds the scenes themselves: go to a folder beside it, and a project is made there")
    source = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files = {
        path.relative_to(source).as_posix(): path.read_bytes() for path in sorted((source / "conf/base").glob("*.yml"))
    }
    files |= {name: (source / name).read_bytes() for name in ("conf/logging.yml", "conf/no_simulation.json")}
    name, kedro = here.name or "project", importlib.metadata.version("kedro")
    words = {
        "conf/local/.gitkeep": "",
        ".gitignore": _IGNORED,
        ".telemetry": "consent: false\n",
        "README.md": _README.format(name=name, version=a2mae.__version__),
        "pyproject.toml": _PYPROJECT.format(
            name=json.dumps(plain_text(name), ensure_ascii=False), kedro=kedro
        ),  # last: with it the project is one
    }
    taken = [top for top in ("conf", "pyproject.toml", "README.md", ".gitignore") if (folder / top).exists()]
    if taken:
        raise InputError(
            f"{folder} lies in no project, and to make one here {' and '.join(taken)} is in the way: go to an empty"
            " folder"
        )
    for path, content in [*files.items(), *((path, text.encode()) for path, text in words.items())]:
        make_folder((folder / path).parent)
        with whole_file(folder / path) as partial:
            partial.write_bytes(content)
    return ["conf/base", "conf/local", ".gitignore", "README.md", "pyproject.toml"]


def check_pipeline() -> None:
    """Reject the bare install, which has what inference needs and nothing else.

    Raises:
        InputError: If the extra 'pipeline' is not installed.
    """
    if importlib.util.find_spec("kedro") is None or importlib.util.find_spec("rasterio") is None:
        raise InputError("a2mae is installed for inference alone: install its extra 'pipeline', a2mae[pipeline]")


def configuration(project: Path, env: str, datasets: Sequence[str] = ()) -> tuple[OmegaConfigLoader, DataCatalog]:
    """Read an environment: its parameters, of which some may still have to be stated, and its datasets.

    Args:
        project: Its folder.
        env: Name of the environment.
        datasets: Those that are made here, so that what is wrong with one is told; others are made when they are used.

    Raises:
        InputError: If there is none of the name, or a run would refuse its files.
    """
    from kedro.config import MissingConfigException  # noqa: PLC0415 (`--help` is instant)
    from kedro.io import DataCatalog, DatasetError  # noqa: PLC0415
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    from a2mae.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS  # noqa: PLC0415

    conf = project / "conf"
    known = [path.name for path in conf.iterdir() if path.is_dir()]
    if env not in known:  # a path would be read as an environment, too
        names = [name for name in known if name != CONFIG_LOADER_ARGS["base_env"]]
        raise InputError(
            f"{conf} has no environment {env!r}: {did_you_mean(env, names)}a2mae init PATH --name {env} makes it of a"
            " folder of scenes"
        )
    loader = CONFIG_LOADER_CLASS(conf_source=str(conf), env=env, **cast("dict[str, Any]", CONFIG_LOADER_ARGS))
    try:
        for kind in ("parameters", "globals"):
            loader[kind] = loader[kind]  # read once, here
        catalog = loader["catalog"]
        for entry in catalog.values():  # Kedro itself resolves paths against the project, not against where one stands
            if isinstance(entry, dict) and "://" not in (path := str(entry.get("filepath", "://"))):
                entry["filepath"] = str(project / path)
        found = DataCatalog.from_config(catalog)
        for name in datasets:
            found.get(name)  # makes it, and tells of a type that is none
    except A2maeError:
        raise
    except (
        *(OmegaConfBaseException, MissingConfigException, DatasetError),
        *(ValueError, TypeError, AttributeError),  # Kedro's own, of keys in two files and of entries of another form
    ) as error:
        raise InputError(f"the environment {env} cannot be read: {error}") from error
    return loader, found
