"""Find dates and bands in file names, and the pattern that a set of names has in common."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from a2mae.stssd.ingest.rules import template_regex

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_YEAR = r"(?:19[6-9]\d|20[0-4]\d)"
_BEFORE, _AFTER = r"(?<![0-9])", r"(?![0-9])"
_DATES: tuple[tuple[str, str], ...] = (  # regular expression, strptime format; the first that is read everywhere wins
    (rf"{_YEAR}-\d\d-\d\d-\d\d-\d\d-\d\d", "%Y-%m-%d-%H-%M-%S"),
    (rf"{_YEAR}-\d\d-\d\dT\d\d-\d\d-\d\d", "%Y-%m-%dT%H-%M-%S"),
    (rf"{_YEAR}\d{{4}}T\d{{6}}", "%Y%m%dT%H%M%S"),
    (rf"{_YEAR}\d{{4}}_\d{{6}}", "%Y%m%d_%H%M%S"),
    (rf"{_YEAR}\d{{10}}", "%Y%m%d%H%M%S"),
    (rf"{_YEAR}-\d\d-\d\d", "%Y-%m-%d"),
    (rf"{_YEAR}_\d\d_\d\d", "%Y_%m_%d"),
    (rf"{_YEAR}\.\d\d\.\d\d", "%Y.%m.%d"),
    (rf"{_YEAR}\d{{4}}", "%Y%m%d"),
    (rf"\d{{4}}{_YEAR}", "%d%m%Y"),
    (rf"\d\d?(?:{_MONTHS}){_YEAR}", "%d%b%Y"),
    (rf"\d\d?[-_ ](?:{_MONTHS})[-_ ]{_YEAR}", "%d-%b-%Y"),
    (rf"\d\d-\d\d-{_YEAR}", "%d-%m-%Y"),
    (rf"\d\d_\d\d_{_YEAR}", "%d_%m_%Y"),
    (rf"(?<=A){_YEAR}\d{{3}}", "%Y%j"),
)
_TWO_WAYS = {"%d-%m-%Y": "%m-%d-%Y", "%d_%m_%Y": "%m_%d_%Y"}
_BAND = re.compile(
    r"(?<![A-Za-z0-9])(?P<band>(?:SR_|ST_)?B\d{1,2}A?|band_?\d{1,2}|VV|VH|HH|HV|SCL|QA_PIXEL|BQA|Fmask|cloud_?mask|coastal"
    r"|blue|green|red|rededge[123]?|nir(?:08|09)?|swir(?:16|22|1|2)?|pan)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Dated:
    """A date in a path.

    Attributes:
        start: Of its text.
        end: Behind its text.
        date_format: How strptime reads it.
    """

    start: int
    end: int
    date_format: str


def read_date(text: str, date_format: str) -> dt.datetime | None:
    """Read a date; None if it is none."""
    try:
        return dt.datetime.strptime(text, date_format)
    except ValueError:
        return None


def dates_in(path: str) -> list[Dated]:
    """Find the dates in a path: those of the name, or where it has none those of its folders; none within another."""
    name_at = path.rfind("/") + 1
    found: list[Dated] = []
    for expression, date_format in _DATES:
        for match in re.finditer(_BEFORE + expression + _AFTER, path, re.IGNORECASE):
            if "/" in match[0] or read_date(_plain(match[0], date_format), date_format) is None:
                continue
            if not any(one.start < match.end() and match.start() < one.end for one in found):
                wanted = _worded(match[0], date_format)
                found.append(Dated(match.start(), match.end(), wanted))
    named = [one for one in found if one.start >= name_at]
    return sorted(named or found, key=lambda one: one.start)


def _worded(text: str, date_format: str) -> str:
    """A format with the very signs that stand between day, month and year."""
    if date_format != "%d-%b-%Y":
        return date_format
    first, second = re.findall(r"[-_ ]", text)[:2]
    return f"%d{first}%b{second}%Y"


def _plain(text: str, date_format: str) -> str:
    return re.sub(r"[-_ ]", "-", text) if date_format == "%d-%b-%Y" else text


def other_reading(dates: Iterable[str], date_format: str) -> str | None:
    """The other order of day and month in which all of these dates can be read; None where there is none."""
    other = _TWO_WAYS.get(date_format)
    return other if other and all(read_date(text, other) is not None for text in dates) else None


def band_in(path: str) -> tuple[int, int] | None:
    """Find the place of the last word in a file's name that names a band; None where none does."""
    name_at, stem_end = path.rfind("/") + 1, len(os.path.splitext(path)[0])
    # An underscore parts words here, and `\b` takes it for a letter.
    words = [m for m in _BAND.finditer(path[:stem_end].replace("_", " ")) if m.start() >= name_at]
    whole = [m for m in _BAND.finditer(path[:stem_end]) if m.start() >= name_at and "_" in m[0]]
    found = max([*words, *whole], key=lambda m: (m.end(), m.end() - m.start()), default=None)
    return None if found is None else found.span("band")


def shape_of(text: str) -> str:
    """A path with every number replaced: names that differ in numbers alone are of one kind."""
    return re.sub(r"\d+", "#", text)


def pattern_of(
    paths: Sequence[str],
    others: Iterable[str],
    date: Callable[[str], tuple[int, int] | None],
    band: Callable[[str], tuple[int, int] | None],
) -> tuple[str, str]:
    """Make the pattern that these paths have in common and no other raster of the folder has.

    Args:
        paths: Below the folder.
        others: Those that it must not match.
        date: The place of the date in a path; None for all or none.
        band: The place of the band's word, likewise.

    Returns:
        `files` and the pattern; or `regex` with every name spelled out where no pattern tells them apart.
    """
    cut = [_cut(path, date(path), band(path)) for path in paths]
    fields = [field for _, field in cut[0]]
    columns = [[parts[k][0] for parts in cut] for k in range(len(fields))]
    files = "".join(_common(texts) + (field or "") for texts, field in zip(columns, fields, strict=True))
    expression = re.compile(template_regex(files))
    if not any(expression.fullmatch(other) for other in others):
        return "files", files
    seen: set[str] = set()
    parts = []
    for texts, name in zip(columns, fields, strict=True):
        parts.append("(?:" + "|".join(sorted({re.escape(text) for text in texts})) + ")")
        if name:
            word = name[1:-1]
            parts.append(f"(?P={word})" if word in seen else f"(?P<{word}>[^/]+?)")
            seen.add(word)
    return "regex", "".join(parts)


def _cut(path: str, date: tuple[int, int] | None, band: tuple[int, int] | None) -> list[tuple[str, str]]:
    """A path as texts, each with the field that follows it; the last one with none."""
    spans = sorted((span, field) for span, field in ((date, "{date}"), (band, "{band}")) if span is not None)
    parts, at = [], 0
    for (start, end), field in spans:
        parts.append((path[at:start], field))
        at = end
    return [*parts, (path[at:], "")]


def _common(texts: Sequence[str]) -> str:
    """A pattern of several texts: what differs becomes `*`, folders one by one where they are equally deep."""
    if len(set(texts)) == 1:
        return texts[0].replace("{", "?").replace("}", "?").replace("*", "?")
    depths = {text.count("/") for text in texts}
    if len(depths) > 1:
        tails = [text.rsplit("/", 1)[-1] for text in texts]
        return "**/" + _common(tails) if all(depths) else "**" + _shared_end(tails)
    if depths != {0}:
        return "/".join(_common(column) for column in zip(*(text.split("/") for text in texts), strict=True))
    start = _shared_end([text[::-1] for text in texts])[::-1]
    end = _shared_end([text[len(start) :] for text in texts])
    # A number that names begin or end alike is chance: plot-17 and plot-18 are plot-*.
    start, end = re.sub(r"\d+$", "", start), re.sub(r"^\d+", "", end)
    return f"{start}*{end}".replace("{", "?").replace("}", "?")


def _shared_end(texts: Sequence[str]) -> str:
    first, last = min(backwards := [text[::-1] for text in texts]), max(backwards)
    return first[: next((k for k, sign in enumerate(first) if last[k : k + 1] != sign), len(first))][::-1]
