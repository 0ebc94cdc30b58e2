"""Judgements that are kept: each a file of its own, written whole, and named after everything that decides it.

So work that was stopped goes on where it stopped, and a changed model, option or data set is judged anew. Each says by
which code it was made: an evaluation of minutes judges anew what other code has judged; a comparison of hours keeps it
and says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2mae.files import write_json

logger = logging.getLogger(__name__)

Row = Mapping[str, object]
"""Of the score table."""


@dataclass(frozen=True)
class Unit:
    """One judgement.

    Attributes:
        code: Digest of the code that made it.
        rows: What it found.
    """

    code: str
    rows: list[Row]


@dataclass(frozen=True)
class Units:
    """The judgements in a folder.

    Attributes:
        folder: Made with the first of them.
        code: Digest of the code that judges now.
    """

    folder: Path
    code: str

    def path(self, decided_by: Sequence[object]) -> Path:
        """Where a judgement is kept.

        Args:
            decided_by: Plain values: all that its scores depend on, except code.
        """
        return self.folder / f"{hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:24]}.json"

    def found(self, decided_by: Sequence[object]) -> Unit | None:
        """A judgement that was made, by whatever code; None if it was not."""
        path = self.path(decided_by)
        if not path.is_file():
            return None
        document = json.loads(path.read_text("utf-8"))
        return Unit(document.get("code", ""), document["rows"])  # older ones do not say

    def keep(self, decided_by: Sequence[object], rows: Sequence[Row]) -> None:
        """Write a judgement of today's code, whole or not at all."""
        write_json(self.path(decided_by), {"code": self.code, "rows": [dict(row) for row in rows]})

    def rows(self, name: str, decided_by: Sequence[object], judge: Callable[[], Sequence[Row]]) -> list[Row]:
        """The judgement as this code made it before, or made now and kept.

        Args:
            name: For the log.
            decided_by: All that its scores depend on, except code.
            judge: Makes it.
        """
        before = self.found(decided_by)
        if before is not None and before.code == self.code:
            logger.info("%s: judged before", name)
            return before.rows
        rows = list(judge())
        self.keep(decided_by, rows)
        return rows
