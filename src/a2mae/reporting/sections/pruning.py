"""What pruning changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.figures import flat, value_of, words
from a2mae.reporting.inputs import ReportInputs

_MAX_MATRIX = 24
"""Rows of a matrix; those beyond are added up in one more."""


def pruning(inputs: ReportInputs) -> Section | None:
    """Before and after, as the prune stage reported it."""
    if inputs.prune_report is None:
        return None
    lead = "Pruning keeps a balanced choice of the sets by clusters of their content."
    if inputs.sets is not None:
        kept = int(inputs.sets["kept"].astype(bool).sum())
        lead += f" {text.count(kept)} of {text.plural(len(inputs.sets), 'set')} stayed."
    return Section("pruning", "Pruning, before and after", lead, _pruning_tables(inputs.prune_report))


def _pruning_tables(report: Mapping[str, object]) -> tuple[Table, ...]:
    """One table with both sides where the report has `before` and `after`; everything else as it comes."""
    before, after = report.get("before"), report.get("after")
    tables = []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        left, right = dict(flat(before)), dict(flat(after))
        names = list(dict.fromkeys([*left, *right]))
        rows = tuple((name, left.get(name, text.ABSENT), right.get(name, text.ABSENT)) for name in names)
        tables.append(Table("Before and after", ("measure", "before", "after"), rows, numeric=(1, 2)))
        report = {key: value for key, value in report.items() if key not in ("before", "after")}
    return (*tables, *_tables(report))


def _tables(report: Mapping[str, object]) -> Iterator[Table]:
    """Top-level mappings become tables of their own, a matrix where entries are alike; single values share one."""
    single = [(words(key), value_of(value, key)) for key, value in report.items() if not isinstance(value, Mapping)]
    if single:
        yield Table("overall", ("measure", "value"), tuple(single), numeric=(1,))
    for key, value in report.items():
        if not isinstance(value, Mapping) or not value:
            continue
        if _alike(value):
            yield _matrix(key, cast("Mapping[str, Mapping[str, object]]", value))
        else:
            yield Table(words(key), ("measure", "value"), tuple(flat(value)), numeric=(1,))


def _alike(report: Mapping[str, object]) -> bool:
    """Several mappings with the same keys, none of them deeper."""
    entries = [value for value in report.values() if isinstance(value, Mapping)]
    return (
        len(entries) == len(report) > 1
        and len({tuple(entry) for entry in entries}) == 1
        and not any(isinstance(value, Mapping) for entry in entries for value in entry.values())
    )


def _matrix(name: str, entries: Mapping[str, Mapping[str, object]]) -> Table:
    """A row per entry, a column per measure; the largest by the first count where there are many."""
    columns = list(next(iter(entries.values())))
    rows = list(entries.items())
    count = next((column for column in columns if type(rows[0][1][column]) is int), None)
    rest: list[Mapping[str, object]] = []
    if len(rows) > _MAX_MATRIX and count is not None:
        by_count = sorted(rows, key=lambda row: -cast("int", row[1][count]))
        rows, rest = by_count[:_MAX_MATRIX], [entry for _, entry in by_count[_MAX_MATRIX:]]
    shown = [(key, *(value_of(entry[column], column) for column in columns)) for key, entry in rows]
    if rest:
        shown.append(
            (f"the other {text.count(len(rest))}", *(_sum([entry[column] for entry in rest]) for column in columns))
        )
    one = words(name).removesuffix("s")
    numeric = tuple(i + 1 for i, column in enumerate(columns) if not isinstance(rows[0][1][column], str | bool))
    return Table(words(name), (one, *map(words, columns)), tuple(shown), numeric=numeric)


def _sum(values: Sequence[object]) -> str:
    """Counts added up; a dash for what has no sum."""
    if all(isinstance(value, bool) for value in values):
        return f"{sum(map(bool, values))} yes"
    return text.count(sum(map(int, cast("list[int]", values)))) if all(type(v) is int for v in values) else text.ABSENT
