"""The data set's four properties, and what pruning changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from a2mae.reporting import text
from a2mae.reporting.blocks import Section, Table
from a2mae.reporting.inputs import ReportInputs

_MAX_LIST = 12


def four_properties(inputs: ReportInputs) -> Section | None:
    """Several sources, diverse coverage, unified locations, heterogeneity: as measured."""
    if inputs.four_properties is None:
        return None
    return Section(
        "four-properties",
        "The four properties",
        "What a spatial-temporal-spectral structured data set claims to be, measured on this one: several sources,"
        " diverse coverage, unified locations within a set, and heterogeneity within the images.",
        tuple(
            Table(_words(name), ("measure", "value"), tuple(rows), numeric=(1,))
            for name, rows in _groups(inputs.four_properties)
        ),
    )


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
        left, right = dict(_flat(before)), dict(_flat(after))
        names = list(dict.fromkeys([*left, *right]))
        rows = tuple((name, left.get(name, text.ABSENT), right.get(name, text.ABSENT)) for name in names)
        tables.append(Table("Before and after", ("measure", "before", "after"), rows, numeric=(1, 2)))
        report = {key: value for key, value in report.items() if key not in ("before", "after")}
    tables += [
        Table(_words(name), ("measure", "value"), tuple(rows), numeric=(1,)) for name, rows in _groups(report) if rows
    ]
    return tuple(tables)


def _groups(report: Mapping[str, object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Top-level mappings become tables of their own; single values share one."""
    single = [(_words(key), _value(value)) for key, value in report.items() if not isinstance(value, Mapping)]
    groups = [(key, list(_flat(value))) for key, value in report.items() if isinstance(value, Mapping)]
    return ([("overall", single)] if single else []) + groups


def _flat(report: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in report.items():
        name = f"{prefix}{_words(str(key))}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, _value(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _value(value: object) -> str:
    if value is None:
        return text.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return text.count(value)
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(_value(item) for item in value[:_MAX_LIST])
        return shown + (f" … ({len(value)})" if len(value) > _MAX_LIST else "")
    return str(value)
