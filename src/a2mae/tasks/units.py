"""Judgements that are kept: each a file of its own, written whole, and named after everything that decides it.

So work that was stopped goes on where it stopped, and a changed model, option or data set is judged anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2mae.tasks.files import write_json

logger = logging.getLogger(__name__)

Row = Mapping[str, object]
"""Of the score table."""


@dataclass(frozen=True)
class Units:
    """The judgements in a folder.

    Attributes:
        folder: Made with the first of them.
    """

    folder: Path

    def path(self, decided_by: Sequence[object]) -> Path:
        """Where a judgement is kept.

        Args:
            decided_by: Plain values: all that its scores depend on.
        """
        return self.folder / f"{hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:24]}.json"

    def found(self, decided_by: Sequence[object]) -> list[Row] | None:
        """Rows of a judgement that was made; None if it was not."""
        path = self.path(decided_by)
        return json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else None

    def keep(self, decided_by: Sequence[object], rows: Sequence[Row]) -> None:
        """Write a judgement, whole or not at all."""
        write_json(self.path(decided_by), {"rows": [dict(row) for row in rows]})

    def rows(self, name: str, decided_by: Sequence[object], judge: Callable[[], Sequence[Row]]) -> list[Row]:
        """The judgement as it was made before, or made now and kept.

        Args:
            name: For the log.
            decided_by: All that its scores depend on.
            judge: Makes it.
        """
        before = self.found(decided_by)
        if before is not None:
            logger.info("%s: judged before", name)
            return before
        rows = list(judge())
        self.keep(decided_by, rows)
        return rows
