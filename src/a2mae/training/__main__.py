"""`python -m a2mae.training RUN_DIR`: train what a run directory specifies, with or without Kedro.

It is started by hand, by the `pretrain` node, by `torchrun` or by SLURM. Exit status: 0 finished, 1 failed (the reason
is in `RUN_DIR/error.json` too), 128 + signal when stopped with a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import sys
from pathlib import Path

from a2mae.errors import A2maeError
from a2mae.files import clear_leftovers, write_json
from a2mae.locks import locked
from a2mae.parallel import share_cores
from a2mae.training.launch import StopRequest
from a2mae.training.spec import ERROR_FILE, read_spec

_OPEN_FILES = 65_536


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those of the process if None.

    Returns:
        The exit status.
    """
    share_cores()
    parser = argparse.ArgumentParser(prog="python -m a2mae.training", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="directory with spec.json, as the pretrain stage writes it")
    parser.add_argument("--dry-run", action="store_true", help="say what the run will cost, and train nothing")
    parser.add_argument("--devices", type=int, help="processes on this machine, instead of the specification's")
    parser.add_argument("--nodes", type=int, help="machines, instead of the specification's")
    parser.add_argument("--strategy", choices=("auto", "ddp", "fsdp"), help="instead of the specification's")
    options = parser.parse_args(arguments)
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or "0"
    logging.basicConfig(
        level=logging.INFO if rank == "0" else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s" if rank == "0" else f"rank {rank}: %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    run_dir: Path = options.run_dir
    stop = StopRequest()
    stop.install()
    _allow_open_files()
    if run_dir.is_dir():
        (run_dir / ERROR_FILE).unlink(missing_ok=True)
    try:
        changes = {name: value for name in ("devices", "nodes", "strategy") if (value := getattr(options, name))}
        spec = read_spec(run_dir).with_hardware(**changes)
        # Torch and Lightning take seconds to import: a wrong path or key is reported before.
        if options.dry_run:
            from a2mae.training.planner import plan  # noqa: PLC0415

            for line in plan(run_dir, spec):
                sys.stdout.write(line + "\n")
            return 0
        from a2mae.training.loop import train  # noqa: PLC0415

        with locked(run_dir) if rank == "0" else contextlib.nullcontext():
            if rank == "0":
                clear_leftovers(run_dir)
            return 0 if train(run_dir, spec, stop) else stop.exit_code
    except Exception as error:  # the process ends here: whoever started it reads the reason in the file
        logging.getLogger(__name__).error(
            "%s: %s", type(error).__name__, error, exc_info=not isinstance(error, A2maeError)
        )
        # A rank that fails takes the others with it: the reason of the first one is kept.
        if run_dir.is_dir() and not (run_dir / ERROR_FILE).exists():
            write_json(run_dir / ERROR_FILE, {"type": type(error).__name__, "message": str(error), "rank": int(rank)})
        return 1


def _allow_open_files() -> None:
    """Raise the limit of open files to what the system allows: shards that stay open are read faster."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
