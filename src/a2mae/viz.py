"""Build Kedro-Viz's page as files that load nothing from other hosts, for any web server: `python -m a2mae.viz`.

`kedro viz build` writes pages that load a typeface from Google's servers. They look the same with a typeface of the
reader's system, so here these links are taken out. The live server of `kedro viz run` sends Kedro-Viz's own page, which
has them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

BUILD = Path("build")
"""Where `kedro viz build` writes."""
_OUTSIDE = re.compile(r"[ \t]*<(?:link|script)\b[^>]*\b(?:href|src)=\"https?://[^>]*>(?:\s*</script>)?\n?", re.S)


def without_outside(page: str) -> str:
    """Return a page without the links and scripts that come from other hosts."""
    return _OUTSIDE.sub("", page)


def build(*, previews: bool = True, env: str | None = None) -> Path:
    """Build the page of the project in the current folder.

    Args:
        previews: With the first rows, pictures and curves of what the stages wrote.
        env: Configuration environment: its chain is shown, and what lies in its data root; None: Kedro's default.

    Returns:
        The folder with `index.html`.
    """
    # With the hooks: one of them says which stages the environment chains.
    command = ["kedro", "viz", "build", "--include-hooks", *(["--include-previews"] if previews else [])]
    variables = os.environ | ({} if env is None else {"KEDRO_ENV": env})  # `viz build` has no --env
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], check=True, env=variables)
    (BUILD / "telemetry.html").unlink(missing_ok=True)  # a piece that the server puts in where somebody agreed to it
    for path in sorted(BUILD.glob("*.html")):
        path.write_text(without_outside(path.read_text("utf-8")), "utf-8")
    return BUILD


def main(arguments: list[str] | None = None) -> int:
    """Build the page and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m a2mae.viz", description=__doc__)
    parser.add_argument("--no-previews", action="store_true", help="the graph alone: nothing of the data is shown")
    parser.add_argument("--env", help="configuration environment whose chain is shown")
    options = parser.parse_args(arguments)
    folder = build(previews=not options.no_previews, env=options.env)
    sys.stdout.write(f"{folder}/index.html: serve it with python -m http.server -d {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
