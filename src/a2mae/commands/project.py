"""The project that `a2mae init` works in: the one around it, or a small new one that uses the installed package."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import a2mae
from a2mae.errors import InputError
from a2mae.files import make_folder, whole_file

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext

_PACKAGED = Path(a2mae.__file__).parent / "project"
_CHECKOUT = Path(a2mae.__file__).parents[2]
_PYPROJECT = """\
# A Kedro project around the installed package a2mae: its code is updated with pip, its configuration is conf/.
[tool.kedro]
package_name = "a2mae"
project_name = "{name}"
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
            if "kedro" in tomllib.loads(file.read_text("utf-8")).get("tool", {}):
                return folder
        except ValueError as error:
            raise InputError(f"{file} is no TOML: {error}") from error
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
            name=name.replace('"', ""), kedro=kedro
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


def context_of(project: Path, env: str) -> KedroContext:
    """Open an environment: its configuration and catalog, after the checks that a run makes of its files.

    Args:
        project: Its folder.
        env: Name of the environment.
    """
    from kedro.framework.session import KedroSession  # noqa: PLC0415 (`--help` is instant)
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    bootstrap_project(project)
    return KedroSession.create(project_path=project, env=env, save_on_close=False).load_context()
