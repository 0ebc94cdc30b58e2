"""What is seen of a run while it goes on: one CSV row per interval, safe to kill and to continue, and a bar.

`metrics.csv` holds what the seed decides, so two runs write the same bytes; `timing.csv` holds what the clock decides.
"""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from a2mae.files import write_bytes

_LOG = logging.getLogger(__name__)
METRICS_FILE = "metrics.csv"
TIMING_FILE = "timing.csv"


class Record:
    """A CSV file that grows by whole lines."""

    def __init__(self, path: Path, columns: tuple[str, ...], *, resume_at: int) -> None:
        """Start the file, or go on with it.

        Args:
            path: The file.
            columns: Its header; the first is `step`.
            resume_at: Rows of later steps are dropped: the resumed run writes them again. 0 starts afresh.
        """
        self._path, self._columns = path, columns
        kept = [row for row in read_record(path) if int(row["step"]) <= resume_at] if resume_at else []
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(kept)
        write_bytes(path, buffer.getvalue().encode())

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add one row; values that are not there are left empty.

        Args:
            row: Value of each column; floats are written with the digits that read back as the same number.
        """
        unknown = set(row) - set(self._columns)
        if unknown:
            raise KeyError(f"{self._path.name} has no column {', '.join(sorted(unknown))}")
        cells = ["" if row.get(name) is None else repr(row[name]) for name in self._columns]
        # One write of one line in append mode: a killed run leaves whole lines.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(",".join(cells) + "\n")


def read_record(path: Path) -> list[dict[str, str]]:
    """The rows of a record; a line cut short by a crash is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    return [row for row in rows if None not in row and None not in row.values()]


class Progress:
    """A bar on a terminal; in a pipe or a log file a line every tenth of the run instead of a thousand."""

    def __init__(self, steps: int, start: int, *, shown: bool) -> None:
        """Begin.

        Args:
            steps: Steps of the whole run.
            start: Steps already taken.
            shown: False in all processes but the first.
        """
        self._steps, self._shown = steps, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", desc="pretrain", disable=not self._terminal)
        self._started, self._first = time.monotonic(), start

    def update(self, step: int, loss: float | None) -> None:
        """Show that `step` steps are done.

        Args:
            step: Steps taken in all.
            loss: The newest loss known on the host.
        """
        self._bar.update(1)
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        tenth = max(1, self._steps // 10)
        if self._shown and not self._terminal and (step % tenth == 0 or step == self._steps):
            elapsed = time.monotonic() - self._started
            left = elapsed / max(1, step - self._first) * (self._steps - step)
            shown = "" if loss is None else f", loss {loss:.4f}"
            _LOG.info("step %d of %d%s, %.0f s so far, about %.0f s left", step, self._steps, shown, elapsed, left)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
