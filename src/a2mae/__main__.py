"""The chain outside of a checkout: `python -m a2mae [OPTIONS OF kedro run]`, in a folder that holds `conf/`.

`kedro package` writes the wheel and `conf-a2mae.tar.gz`; with the wheel installed, `--conf-source=conf-a2mae.tar.gz` or
the unpacked folder is all that a run needs. Outputs go to `data/` of the current folder, as in a checkout.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> None:
    """Run the pipelines as `kedro run` does."""
    if importlib.util.find_spec("kedro") is None:
        sys.exit(
            "a2mae is installed for inference alone; the pipelines need its extra 'pipeline': install the wheel as"
            " 'a2mae-<version>-py3-none-any.whl[pipeline]', or '.[pipeline]' in a checkout"
        )
    # In a checkout files say so; here there are none.
    os.environ.setdefault("KEDRO_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("WANDB_MODE", "offline")

    from kedro.framework.cli.utils import find_run_command  # noqa: PLC0415 (a bare install has no Kedro)
    from kedro.framework.project import configure_project  # noqa: PLC0415

    configure_project("a2mae")
    find_run_command("a2mae")(prog_name="python -m a2mae")


if __name__ == "__main__":
    main()
