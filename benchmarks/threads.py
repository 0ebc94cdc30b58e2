"""What two threads of torch cost when another program wants one of the cores, by how long waiting threads spin.

Every side runs in a process of its own, in turn, first alone and then beside one busy process; medians over the rounds.

Usage: python benchmarks/threads.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

import torch

SIDES = {
    "as torch comes": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=5000 (ours)": {"GOMP_SPINCOUNT": "5000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY = "while True: pass"


def step_ms(seconds: float) -> float:
    """Median time of a training step of six small transformer blocks on two threads, milliseconds."""
    torch.set_num_threads(2)
    layers = [torch.nn.TransformerEncoderLayer(192, 3, 768, batch_first=True, norm_first=True) for _ in range(6)]
    model, tokens = torch.nn.Sequential(*layers), torch.randn(48, 17, 192)
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        started = time.perf_counter()
        model(tokens).square().mean().backward()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[1:])


def measured(settings: dict[str, str], seconds: float) -> float:
    """`step_ms` in a fresh process: OpenMP reads its settings when it is loaded."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, __file__, "--side", str(seconds)],
        env={**own, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    """Take the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--side", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(step_ms(arguments.side))
        return
    rounds, seconds = (1, 1.0) if arguments.quick else (3, 4.0)
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{platform.machine()} torch {torch.__version__}, 2 threads, {cores} cores, load {load:.1f}")
    found: dict[str, list[list[float]]] = {name: [[], []] for name in SIDES}
    for beside in (0, 1):
        others = [
            subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
            for _ in range(beside and max((cores or 2) - 1, 1))
        ]
        try:
            for _ in range(rounds):
                for name, settings in SIDES.items():
                    found[name][beside].append(measured(settings, seconds))
        finally:
            for other in others:
                other.kill()
                other.wait()
    print(f"{'ms per step':30s} {'alone':>8s} {'beside':>8s}")
    for name, (alone, shared) in found.items():
        print(f"{name:30s} {statistics.median(alone):8.0f} {statistics.median(shared):8.0f}")


if __name__ == "__main__":
    main()
