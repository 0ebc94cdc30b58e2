"""Executes a notebook with IPython in its own folder, as Jupyter would: `python run_notebook.py NOTEBOOK [PICTURES]`.

Cells run in order in one shell; the first error ends it. Pictures go to the folder, numbered, or are only counted.
Ends with a line of JSON: cells run and pictures drawn.
"""

import json
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from IPython.core.interactiveshell import InteractiveShell


def execute(notebook: Path, pictures: Path | None) -> dict[str, int]:
    """Run every code cell; figures are taken where `plt.show()` would have shown them."""
    drawn: list[int] = []

    def show(*_: object, **__: object) -> None:
        for number in plt.get_fignums():
            if pictures is not None:
                plt.figure(number).savefig(pictures / f"{notebook.stem}_{len(drawn):02d}.png", dpi=90)
            else:
                plt.figure(number).canvas.draw()
            drawn.append(number)
        plt.close("all")

    plt.show = show
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    os.chdir(notebook.parent)
    shell = InteractiveShell.instance()
    for cell in cells:
        shell.run_cell("".join(cell["source"])).raise_error()
    return {"cells": len(cells), "pictures": len(drawn)}


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.stdout.write("\n" + json.dumps(execute(Path(sys.argv[1]).resolve(), target)) + "\n")
