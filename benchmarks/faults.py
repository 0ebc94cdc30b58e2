"""What kills, power cuts, full disks, flipped bytes and a second run do to a small chain: counted, and what was silent.

Each trial starts from the finished stages before it, does its harm to one stage, and runs the same command again. It
ends in the same bytes as an undisturbed run, or in a sentence; what does neither is silent, and must be none.

    python benchmarks/faults.py --quick
    python benchmarks/faults.py --work FOLDER    # stopped, it goes on where it was
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from a2mae.errors import A2maeError
from a2mae.locks import LOCK
from a2mae.provenance.record import FOLDER, SOURCES_FILE, content_of, read_input, read_record, read_sealed
from a2mae.stssd.store.store import ImageSetStore

ROOT = Path(__file__).parents[1]
STAGES = ("simulate", "ingest", "coregister", "tag", "prune", "pretrain", "segment")
TINY: dict[str, dict[str, Any]] = {
    "chain": {},
    "simulate": {
        "workers": 1,
        "acquisitions": {
            "sentinel-2-l2a": [{"period": "before", "season": "growing"}, {"period": "after", "season": "growing"}],
            "landsat-oli-c2-l2": [{"period": "before", "season": "growing"}],
            "gaofen-1": [],
            "gaofen-2": [],
            "naip": [],
        },
        "regions": [
            {"name": "elbe", "lon": 12.3, "lat": 51.9, "biome": "temperate_plain", "footprints": 2},
        ],
    },
    "coregister": {"workers": 1},
    "tag": {"split": {"block_m": 1920.0, "train": 0.5, "val": 0.2, "test": 0.3}},
    "pretrain": {
        "hardware": {"threads": 1},
        "optimizer": {"steps": 6, "batch_size": 4},
        "logging": {"interval": 2, "monitor_interval": 3, "checkpoint_interval": 2, "reconstructions": 2},
    },
    "segment": {"threads": 1, "finetune": {"steps": 3, "warmup_steps": 1}, "bootstrap": 100, "pictures": 2},
}
WATCH = '''
"""Python runs this when it starts: notes what reached the disk, and kills this process at its n-th publish."""
import os, signal

log, at, before = os.environ.get("FAULTS_LOG"), int(os.environ.get("FAULTS_AT", "0")), os.environ.get("FAULTS_BEFORE")
fsync, replace, count = os.fsync, os.replace, 0


def note(*words):
    if log:
        with open(log, "a") as file:
            file.write("\\t".join(map(str, words)) + "\\n")


def synced(descriptor):
    fsync(descriptor)
    path = os.readlink(f"/proc/self/fd/{descriptor if isinstance(descriptor, int) else descriptor.fileno()}")
    note("S", path, os.stat(path).st_size)


def published(source, target, **more):
    global count
    count += 1
    if count == at and before:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **more)
    note("R", os.path.abspath(source), os.path.abspath(target))
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)


os.fsync, os.replace = synced, published
'''


@dataclass
class Count:
    """Trials of one kind.

    Attributes:
        tried: How many.
        same: Ended in the bytes of an undisturbed run.
        told: Were refused with a sentence, at first or for good.
        silent: What ended well with other bytes.
        unclear: What ended with a traceback or without a word.
    """

    tried: int = 0
    same: int = 0
    told: int = 0
    silent: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    def add(self, what: str, *verdicts: str) -> None:
        """Count a trial by the verdicts of its runs."""
        self.tried += 1
        self.same += verdicts[-1] == "same"
        self.told += "told" in verdicts
        if "silent" in verdicts:
            self.silent.append(what)
        if any(verdict.startswith("unclear") for verdict in verdicts):
            self.unclear.append(f"{what}: {next(v for v in verdicts if v.startswith('unclear'))}")


class Chain:
    """A clone of this repository with a small chain, and its state before every stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clone = folder / "clone"
        self.data = self.clone / "data"
        self._known = folder / "chain.json"
        commit = _commit(ROOT)
        if self._known.exists():
            known = json.loads(self._known.read_text())
            if known["commit"] != commit:
                raise SystemExit(f"{folder} is of commit {known['commit']}, this is {commit}: name another --work")
            self.seconds, self._made = known["seconds"], known["made"]
            return
        shutil.rmtree(self.clone, ignore_errors=True)
        shutil.rmtree(folder / "watch", ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)
        for group, values in TINY.items():
            content = {"chain": list(STAGES)} if group == "chain" else {group: values}
            (self.clone / f"conf/local/parameters_{group}.yml").write_text(yaml.safe_dump(content))
        (folder / "watch").mkdir()
        (folder / "watch/sitecustomize.py").write_text(WATCH)
        self.seconds: dict[str, float] = {}
        self._made: dict[str, dict[str, str | None]] = {}

    def run_all(self, stages: Sequence[str]) -> None:
        """Run stages undisturbed, and keep what there was before each; nothing, where that is done."""
        if self._known.exists():
            return
        for stage in stages:
            self._copy(self.data, self._folder / "before" / stage)
            began = time.monotonic()
            code, told = self.run(stage)
            if code:
                raise SystemExit(f"{stage} failed undisturbed:\n{told[-3000:]}")
            self.seconds[stage] = time.monotonic() - began
            self._made[stage] = self._outputs(stage)
        self._copy(self.data, self._folder / "before" / "end")
        known = {"commit": _commit(self.clone), "seconds": self.seconds, "made": self._made}
        self._known.write_text(json.dumps(known))

    def written(self, stage: str) -> dict[str, int]:
        """Give the sizes of the files that an undisturbed run of a stage leaves new or changed."""
        stages = [*self.seconds, "end"]
        sides = [self._folder / "before" / name for name in (stage, stages[stages.index(stage) + 1])]
        old, new = ({str(f.relative_to(side)): f for f in side.rglob("*") if f.is_file()} for side in sides)
        return {
            name: file.stat().st_size
            for name, file in new.items()
            if name not in old or old[name].read_bytes() != file.read_bytes()
        }

    def _copy(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        if source.exists():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)

    def reset(self, stage: str) -> None:
        """Go back to what there was before a stage, or to the end."""
        self._copy(self._folder / "before" / stage, self.data)

    def start(self, stage: str, *, limit: int | None = None, **watch: object) -> subprocess.Popen[str]:
        """Begin a stage in a session of its own.

        Args:
            stage: Its name.
            limit: No file may grow beyond so many bytes.
            watch: What `WATCH` reads from the environment; none: nothing is watched.
        """
        binaries = Path(sys.executable).parent
        path = [str(self._folder / "watch")] * bool(watch) + [str(self.clone / "src")]
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path),
            "WANDB_MODE": "disabled",
            **{key: str(value) for key, value in watch.items()},
        }
        process = subprocess.Popen(
            [str(binaries / "kedro"), "run", f"--pipelines={stage}"],
            cwd=self.clone,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if limit is not None:  # long before it has anything to write
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        return process

    def run(self, stage: str, *, limit: int | None = None) -> tuple[int, str]:
        """Run a stage; returns its exit status and what it said."""
        process = self.start(stage, limit=limit)
        told, _ = process.communicate(timeout=1200)
        return process.returncode, told

    def _outputs(self, stage: str) -> dict[str, str | None]:
        records = [read_record(path) for path in self._records()]
        return {out.path: out.sha256 for one in records if one.stage == stage for out in one.outputs.values()}

    def _records(self) -> list[Path]:
        return [path for path in sorted((self.data / FOLDER).glob("*.json")) if path.name != SOURCES_FILE]

    def verdict(self, stage: str, code: int, told: str) -> str:
        """Judge a run: same, silent, told or unclear."""
        if code:
            return "told" if "Traceback (most recent" not in told and told.strip() else f"unclear {told[-1500:]}"
        if self._outputs(stage) != self._made[stage]:
            return "silent"
        now = {path: content_of(self.data / path, path) for path in self._made[stage]}
        same = all(found is not None and found.sha256 == self._made[stage][path] for path, found in now.items())
        return "same" if same else "silent"

    def end_of(self, process: subprocess.Popen[str]) -> None:
        """Wait for what a killed run has started; it must end by itself."""
        process.communicate()
        deadline = time.monotonic() + 120
        while _members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        for left in _members(process.pid):
            print(f"a process outlived its killed run: {left}")
            os.kill(left, signal.SIGKILL)


def _commit(root: Path) -> str:
    return subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if entry.name.isdigit() and int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def killed(chain: Chain, count: Count, stage: str, rng: random.Random, *, publish: bool, log: Path | None) -> None:
    """SIGKILL a stage at a random moment or publish; with a log, its power is cut: what was not synced is torn."""
    watch: dict[str, object] = {} if log is None else {"FAULTS_LOG": log}
    what = f"{stage} killed "
    while True:
        chain.reset(stage)
        before = _states(chain.data)
        if log is not None:
            log.unlink(missing_ok=True)
        if publish:
            watch["FAULTS_AT"] = rng.choice((1, 2, 3, 4, 6, 8, 12, 20))
            if rng.random() < 0.5:
                watch["FAULTS_BEFORE"] = "1"
        process = chain.start(stage, **watch)
        if not publish:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=chain.seconds[stage] * rng.uniform(0.4, 1.0))
            if process.poll() is not None:
                process.communicate()
                continue  # it was done before
            os.kill(process.pid, signal.SIGKILL)
        chain.end_of(process)
        if process.returncode != 0:
            break  # of a training process, the stage says that it was killed
    what += f"at publish {watch['FAULTS_AT']}" if publish else "at a random moment"
    if log is not None:
        what += f", {_tear(chain.data, log, before, rng)} files torn"
    count.add(what, chain.verdict(stage, *chain.run(stage)))


def _tear(data: Path, log: Path, before: dict[str, tuple[int, int, int]], rng: random.Random) -> int:
    """Cut every new file to what had reached the disk; returns how many were cut."""
    synced: dict[str, int] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        kind, path, more = line.split("\t")
        if kind == "S":
            synced[path] = int(more)
            continue
        moved = {k: v for k, v in synced.items() if k == path or k.startswith(path + "/")}
        gone = [k for k in synced if k == more or k.startswith(more + "/")]
        for old in (*moved, *gone):
            synced.pop(old, None)
        synced |= {more + k.removeprefix(path): v for k, v in moved.items()}
    torn = 0
    for path, state in _states(data).items():
        size, safe = state[-1], synced.get(path, 0)
        if before.get(path) != state and safe < size:
            os.truncate(path, safe or rng.choice((0, 0, size // 2)))
            torn += 1
    return torn


def _states(data: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of every file."""
    found = {str(f): f.stat() for f in data.rglob("*") if f.is_file() and not f.is_symlink() and f.name != LOCK}
    return {path: (state.st_ino, state.st_mtime_ns, state.st_size) for path, state in found.items()}


def full(chain: Chain, count: Count, stage: str, rng: random.Random, *, mounted: bool) -> None:
    """Run a stage on a disk that is too small for what it writes, then again with room.

    Every disk is hit: it has room for less than half of what the stage leaves, or no file may be as large as the
    largest that it leaves. Where a run ends well all the same, the next has a quarter of that.
    """
    written = chain.written(stage)
    share = rng.uniform(0.1, 0.5)
    while True:
        chain.reset(stage)
        if mounted:
            before = [f.stat().st_size for f in chain.data.rglob("*") if f.is_file()]
            room = _pages(before) + int(_pages(written.values()) * share)
            what = f"{stage} on {room} bytes"
            with _small_disk(chain.data, room) as grow:
                first = chain.verdict(stage, *chain.run(stage))
                grow()
                second = chain.verdict(stage, *chain.run(stage))
        else:
            limit = max(int(max(written.values()) * share), 1)
            what = f"{stage}, files of {limit} bytes"
            first = chain.verdict(stage, *chain.run(stage, limit=limit))
            second = chain.verdict(stage, *chain.run(stage))
        if first != "same":
            count.add(what, first, second)
            return
        share /= 4


def _pages(sizes: Iterable[int]) -> int:
    """What files take of a file system in memory, bytes."""
    return sum(-(-size // 4096) * 4096 for size in sizes)


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Put a file system of its own in a folder's place, with its content."""
    aside = folder.with_name("aside")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size // 1024 + 1}k", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield lambda: subprocess.run(["mount", "-o", "remount,size=2g", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(aside)


def may_mount(folder: Path) -> bool:
    """Whether this user may mount a file system."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=False, capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
    return done.returncode == 0


def twice(chain: Chain, count: Count, stage: str) -> None:
    """Begin a stage twice at once: one ends, the other says who works there."""
    chain.reset(stage)
    both = [chain.start(stage) for _ in range(2)]
    told = [process.communicate(timeout=1200)[0] for process in both]
    verdicts = [chain.verdict(stage, process.returncode, text) for process, text in zip(both, told, strict=True)]
    count.add(f"two of {stage}", *sorted(verdicts, key=lambda verdict: verdict == "same"))


class Flips:
    """Flips bytes in what the chain has made, and asks whoever reads the file next."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        chain.reset("end")
        data = chain.data
        self._records = {path: read_record(path) for path in chain._records()}
        self._outputs = {
            out.path: (name, one.node) for one in self._records.values() for name, out in one.outputs.items()
        }
        self._digests = {out.path: out.sha256 for one in self._records.values() for out in one.outputs.values()}
        self._read = {entry.path for one in self._records.values() for entry in one.inputs.values()}
        files = [f for f in sorted(data.rglob("*")) if f.is_file() and f.stat().st_size and f.name != LOCK]
        self.recorded = [f for f in files if self._artifact(f) or f.parent.name == FOLDER]
        rest = [f for f in files if f not in set(self.recorded)]
        self.others = [(f, stage) for part, stage in READERS.items() for f in rest if part in f.as_posix()]

    def _artifact(self, file: Path) -> str | None:
        relative = file.relative_to(self._chain.data).as_posix()
        fits = [path for path in self._outputs if relative == path or relative.startswith(path + "/")]
        return max(fits, key=len, default=None)

    def in_recorded(self, count: Count, rng: random.Random) -> None:
        """Flip one bit of a file that a record names, and read it as the next stage does, or else as `lineage` does."""
        file = rng.choice(self.recorded)
        with flipped(file, rng) as place:
            try:
                verdict = "told" if self._is_changed(file) else "silent"
            except A2maeError:
                verdict = "told"
            except (ValueError, OSError) as error:
                verdict = f"unclear {error!r}"
            count.add(f"{file.relative_to(self._chain.data)} at {place}", verdict)

    def _is_changed(self, file: Path) -> bool:
        """Read a file as what comes next does, which raises, or compare it as `a2mae.lineage` does."""
        data, artifact = self._chain.data, self._artifact(file)
        if artifact is None:
            _ = read_sealed(file) if file.name == SOURCES_FILE else read_record(file)
            return False
        name, maker = self._outputs[artifact]
        if artifact not in self._read:
            found = content_of(data / artifact, artifact)
            return found is None or found.sha256 != self._digests[artifact]
        read_input(data, name, str(data / artifact), maker)
        if (data / artifact / "manifest.json").is_file():
            store = ImageSetStore.open(str(data / artifact))
            for sensor in store.sensors:
                store.read(sensor, list(range(store.count(sensor))))
        return False

    def in_other(self, count: Count, rng: random.Random) -> None:
        """Flip one bit of a file that no record names, and run the stage that made it again."""
        file, stage = rng.choice(self.others)
        relative = file.relative_to(self._chain.data).as_posix()
        self._chain.reset("end")
        with flipped(file, rng) as place:
            count.add(f"{relative} at {place}, then {stage}", self._chain.verdict(stage, *self._chain.run(stage)))
        self._chain.reset("end")


READERS = {"stssd.zarr.work": "coregister", "pretrain_run/": "pretrain"}
"""Stages that go on from files which no record names."""


@contextlib.contextmanager
def flipped(file: Path, rng: random.Random) -> Iterator[int]:
    """Flip one bit of a file for a while; gives its place."""
    whole = file.read_bytes()
    place = rng.randrange(len(whole))
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
    try:
        yield place
    finally:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(whole)


def main() -> None:
    """Run the trials and print their counts."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one or two of every kind")
    options.add_argument("--kills", type=int, default=30, help="SIGKILLs at random moments")
    options.add_argument("--publish", type=int, default=10, help="SIGKILLs at publish moments")
    options.add_argument("--power-cuts", type=int, default=5, help="kills after which what was not synced is torn")
    options.add_argument("--full", type=int, default=11, help="disks that are full")
    options.add_argument("--flips", type=int, default=720, help="flipped bits in what a record names")
    options.add_argument("--other-flips", type=int, default=10, help="flipped bits in what stages go on from")
    options.add_argument("--twice", type=int, default=3, help="two runs at once")
    options.add_argument("--stages", default=",".join(STAGES), help="those that are harmed; later ones are not run")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--work", type=Path, help="folder that keeps chain and counts; if not given, a temporary one")
    asked = options.parse_args()
    if asked.quick:
        asked.kills = asked.publish = asked.power_cuts = asked.full = asked.other_flips = asked.twice = 1
        asked.flips = 60
    counts: dict[str, Count] = {}
    with contextlib.ExitStack() as stack:
        folder = asked.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        chain = Chain(folder)
        harmed = asked.stages.split(",")
        chain.run_all(STAGES[: max(map(STAGES.index, harmed)) + 1])
        print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, seconds of a stage:")
        print("  " + ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in chain.seconds.items()), flush=True)

        def trials(kind: str, number: int, trial: Callable[[Count, str, random.Random], None]) -> None:
            kept = folder / f"{kind.replace(' ', '_')}-{asked.seed}.json"
            count = counts[kind] = Count(**json.loads(kept.read_text())) if kept.exists() else Count()
            order = random.Random(f"{asked.seed} {kind}").sample(harmed, len(harmed))
            while count.tried < number:
                one = count.tried
                trial(count, order[one % len(order)], random.Random(f"{asked.seed} {kind} {one}"))
                kept.write_text(json.dumps(vars(count), ensure_ascii=False))
            print(f"{kind}: {json.dumps(vars(count), ensure_ascii=False)}"[:4000], flush=True)

        flips = Flips(chain)
        trials("flips", asked.flips, lambda count, _, rng: flips.in_recorded(count, rng))
        mounted = may_mount(folder / "mount")

        def on_full(count: Count, stage: str, rng: random.Random) -> None:
            full(chain, count, stage, rng, mounted=mounted and count.tried % 2 == 1)

        def killing(*, publish: bool, log: Path | None = None) -> Callable[[Count, str, random.Random], None]:
            return lambda count, stage, rng: killed(chain, count, stage, rng, publish=publish, log=log)

        trials("two runs", asked.twice, lambda count, stage, _: twice(chain, count, stage))
        trials("publish kills", asked.publish, killing(publish=True))
        trials("power cuts", asked.power_cuts, killing(publish=True, log=folder / "log"))
        trials("full disks", asked.full, on_full)
        trials("other flips", asked.other_flips, lambda count, _, rng: flips.in_other(count, rng))
        trials("kills", asked.kills, killing(publish=False))
    print("\n| kind | tried | same bytes in the end | told in a sentence | silent | without a sentence |")
    print("|---|---|---|---|---|---|")
    for kind, count in counts.items():
        print(f"| {kind} | {count.tried} | {count.same} | {count.told} | {len(count.silent)} | {len(count.unclear)} |")
    silent = sum(len(count.silent) for count in counts.values())
    unclear = sum(len(count.unclear) for count in counts.values())
    tried = {kind.replace(" ", "_"): count.tried for kind, count in counts.items()}
    print(f"\nRESULT {' '.join(f'{k}={v}' for k, v in tried.items())} silent={silent} without_sentence={unclear}")
    sys.exit(bool(silent or unclear))


if __name__ == "__main__":
    main()
