"""A copy of the project as git would hand it out, to run commands in without touching this one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARD = Path(__file__).parent / "no_network"


def checkout(target: Path) -> Path:
    """Copy what git tracks or would track, as a repository with one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *command], cwd=target, check=True, capture_output=True)
    return target


def changes(repository: Path) -> str:
    """What git sees as changed or new."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout


def run(
    repository: Path,
    *command: str,
    source: Path | None = None,
    socket_log: Path | None = None,
    threads: int = 1,
    wandb: str = "offline",
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in a checkout; with a log, sockets beyond loopback are forbidden and logged.

    Args:
        repository: The checkout.
        command: For example `kedro`, `run`.
        source: Where the package lies, if not in the checkout.
        socket_log: File that gets a line for each forbidden attempt.
        threads: What the shell says of them.
        wandb: `disabled` where runs of it are not what is looked at: each costs seconds.
        timeout: In seconds.
    """
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(source or repository / "src"),
        "WANDB_MODE": wandb,
        "OMP_NUM_THREADS": str(threads),
    }
    environment.pop("KEDRO_DISABLE_TELEMETRY", None)  # files in the repository must be enough
    environment.pop("DO_NOT_TRACK", None)
    if socket_log is not None:
        environment["A2MAE_SOCKET_LOG"] = str(socket_log)
        environment["PYTHONPATH"] = f"{GUARD}{os.pathsep}{environment['PYTHONPATH']}"
    return subprocess.run(
        [str(binaries / command[0]), *command[1:]],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
