"""What `a2mae init` shows and asks at a terminal."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from a2mae.config import TO_STATE
from a2mae.errors import InputError, did_you_mean, plain_text, plural
from a2mae.scenes import MaskKind
from a2mae.sensors import Units
from a2mae.stssd.recognise.facts import COMMON_NAMES, RULE_KEYS, Fact, Product, Recognition, known_sensors
from a2mae.stssd.recognise.recognise import state

_HELP = "Enter takes what stands in brackets, `later` leaves it to be stated in the file, `out` leaves the product out."
_SHOWN = 100
LATER, OUT = "later", "out"
"""Answers that leave a question to be stated in the file, and a product out."""


def say(text: str = "") -> None:
    """Write lines to the terminal; what would steer it, in a name of a file or an item, is shown as `?`."""
    sys.stdout.write(plain_text(text) + "\n")


def show(recognition: Recognition, products: Sequence[Product]) -> None:
    """Write the table of products, the evidence for each statement, and what is no scene."""
    rows: list[tuple[str, ...]] = [
        ("product", "scenes", "files", "dates", "sensor", "bands", "GSD", "scale, offset", "mask")
    ]
    rows += [_row(product) for product in products]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    say(f"{recognition.root}:")
    for row in rows:
        say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for product in products:
        say(f"\n{product.name}: {product.title}; {plural(product.opened, 'file')} looked into")
        show_facts({key: product.rule[key] for key in RULE_KEYS if key in product.rule})
    if recognition.asides or recognition.unusable:
        say("\nno scenes:")
    for aside in recognition.asides:
        say(f"  {plural(aside.count, 'file')}: {aside.why}")
    for path, why in recognition.unusable[:5]:
        say(f"  {path}: {why}")
    if len(recognition.unusable) > 5:
        say(f"  and {len(recognition.unusable) - 5} more that cannot be read")
    for note in recognition.notes:
        say(f"  {note}")
    say()


def show_facts(facts: Mapping[str, Fact]) -> None:
    """Write what is known and what is asked, a line each, with the evidence."""
    width = max(map(len, facts), default=0)
    for key, fact in facts.items():
        say(f"  {'sure ' if fact.known else 'ASKED'} {key:{width}} {_short(fact)}   {fact.evidence}")


def _row(product: Product) -> tuple[str, ...]:
    def told(key: str) -> str:
        fact = product.rule.get(key)
        return "" if fact is None else "ASKED" if not fact.known else _number(fact.value)

    names = product.band_names()
    days = product.dates
    when = (
        "ASKED"
        if not days and "landsat_mtl" not in product.rule
        else days[0]
        if len(days) == 1
        else f"{days[0]} … {days[-1]}"
    )
    factors = "of the MTL file" if "scale" not in product.rule else f"{told('scale')}, {told('offset')}"
    mask = product.rule.get("mask")
    kind = (
        "ASKED"
        if mask and not mask.known
        else str(mask.value["kind"])
        if mask and isinstance(mask.value, Mapping)
        else ""
    )
    return (
        product.name, str(product.scenes), str(len(product.paths)), when, told("sensor"),
        "ASKED" if names is None else str(len(names)), f"{product.gsd_m:.3g} m", factors,
        kind or (told("cloud_test") if "cloud_test" in product.rule else "none"),
    )  # fmt: skip


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(fact: Fact) -> str:
    if not fact.known:
        return "" if fact.suggestion is None else f"[{_text(fact.suggestion)}]"
    text = _text(fact.value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join("-" if item is None else _text(item) for item in value)
    return _number(value)


def ask(products: Sequence[Product], read: Callable[[str], str]) -> list[Product]:
    """Ask what the files do not say, product by product.

    Args:
        products: With what the files say.
        read: Shows a prompt and returns the line that is typed.

    Returns:
        The products that are used, with what was stated; what was left for later is still unknown.

    Raises:
        InputError: If the terminal is closed, or the questions are broken off.
    """
    if any(product.unknown for product in products):
        say(_HELP)
    used = []
    try:
        for product in products:
            told = _ask_one(product, read)
            if told is not None:
                used.append(told)
    except (EOFError, KeyboardInterrupt) as error:
        raise InputError("the questions were broken off: nothing was written") from error
    return used


def _ask_one(product: Product, read: Callable[[str], str]) -> Product | None:
    for key in product.unknown:
        fact = product.rule[key]
        if fact.known:  # it followed from another answer
            continue
        say(f"\n{product.name}, {key}: {fact.evidence}")
        say(f"  {_choices(key, product)}")
        value = ask_one(key, fact, partial(parsed, key, product=product), read, (LATER, OUT))
        if value == OUT:
            return None
        if value != LATER:
            product = state(product, **{key: value})
    return product


def ask_one(
    key: str, fact: Fact, parse: Callable[[str], object], read: Callable[[str], str], words: Sequence[str] = (LATER,)
) -> object:
    """Ask until the answer is one.

    Args:
        key: Of the parameter.
        fact: Why it is asked, and what is likely.
        parse: Reads an answer, or says by an `InputError` why it is none.
        read: Shows a prompt and returns the line that is typed.
        words: That are returned as they are typed.
    """
    brackets = "" if fact.suggestion is None else f" [{_text(fact.suggestion)}]"
    while True:
        typed = read(f"  {key}{brackets}: ").strip()
        if typed in words:
            return typed
        if typed == TO_STATE:
            say(f"  type `{LATER}` to leave it")
        elif typed:
            try:
                return parse(typed)
            except InputError as error:
                say(f"  {error}")
        elif fact.suggestion is not None:
            return fact.suggestion


def _choices(key: str, product: Product) -> str:
    if key == "sensor":
        return f"one of {', '.join(sorted(known_sensors()))}; or a new name, and its bands are asked"
    if key == "bands":
        sensor = known_sensors().get(str(product.rule["sensor"].value))
        names = COMMON_NAMES if sensor is None else [f"{b.name} ({b.common_name})" for b in sensor.bands]
        order = (
            "word=band, …"
            if isinstance(product.rule["bands"].suggestion, Mapping)
            else "in the order of the file, - skips one"
        )
        return f"{order}: {', '.join(names)}"
    return {
        "cloud_test": "brightness, none",
        "datetime": "for example 2023-06-03 or 2023-06-03T10:20:00",
        "date_format": "strptime: %Y year, %m month, %d day, %j day of the year",
        "units": ", ".join(unit.value for unit in Units),
        "scale": "physical units per count, or file for the file's own tag",
        "offset": "physical value of a stored zero, or file for the file's own tag",
        "nodata": "a number, nan, inf, -inf, none, or file for what the file declares",
        "mask": f"how its numbers are read: {', '.join(k.value for k in MaskKind if k is not MaskKind.NONE)}",
    }.get(key, "")


def parsed(key: str, typed: str, product: Product) -> object:
    """Read an answer.

    Args:
        key: Of the rule.
        typed: The line.
        product: What is known so far: bands are those of its sensor.

    Raises:
        InputError: If it is none; the message says what is.
    """
    match key:
        case "sensor":
            if typed not in known_sensors() and re.fullmatch(r"[a-z0-9][a-z0-9-]*", typed) is None:
                near = did_you_mean(typed, known_sensors())
                raise InputError(
                    f"{typed!r} is no sensor and no plain name of a new one: {near}small letters, digits and -"
                )
            return typed
        case "bands":
            return _bands(typed, product)
        case "datetime":
            try:
                return dt.datetime.fromisoformat(typed).isoformat()
            except ValueError as error:
                raise InputError(f"{typed!r} is no date: 2023-06-03 is one") from error
        case "date_format":
            if "%" not in typed:
                raise InputError(f"{typed!r} is no format of strptime: %Y%m%d is one")
            return typed
        case "units":
            if typed not in {unit.value for unit in Units}:
                raise InputError(f"{typed!r} are no units: {did_you_mean(typed, [u.value for u in Units])}")
            return typed
        case "cloud_test":
            if typed not in ("brightness", "none"):
                raise InputError(f"{typed!r} is neither brightness nor none")
            return typed
        case "mask":
            return _mask(typed, product)
    words = {"scale": ("file",), "offset": ("file",), "nodata": ("file", "none", "nan", "inf", "-inf")}[key]
    if typed in words:
        return typed
    try:
        return float(typed)
    except ValueError as error:
        raise InputError(f"{typed!r} is no number (or {' or '.join(words)})") from error


def _bands(typed: str, product: Product) -> object:
    parts = [part.strip() for part in typed.strip("[]").split(",")]
    sensor = known_sensors().get(str(product.rule["sensor"].value))
    known = None if sensor is None else {name for b in sensor.bands for name in (b.name, b.common_name) if name}
    per_file = isinstance(product.rule["bands"].suggestion, Mapping)
    pairs = [part.split("=", 1) if per_file else ["", part] for part in parts]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError("one band per file: write word=band, for example b1=red, b2=green")
    names = [None if pair[1].strip() in ("-", "null", "") else pair[1].strip() for pair in pairs]
    wrong = next((name for name in names if name is not None and known is not None and name not in known), None)
    if wrong is not None and known is not None:
        raise InputError(
            f"the sensor has no band {wrong!r}: {did_you_mean(wrong, known)}it has {', '.join(sorted(known))}"
        )
    if not any(names):
        raise InputError("name at least one band")
    if per_file:
        return {pair[0].strip(): name for pair, name in zip(pairs, names, strict=True) if name is not None}
    if len(names) != product.band_count:
        raise InputError(f"the file has {product.band_count} bands, and {len(names)} are named: - skips one")
    return names


def _mask(typed: str, product: Product) -> object:
    suggestion = product.rule["mask"].suggestion
    where = dict(suggestion) if isinstance(suggestion, Mapping) else {}
    if typed not in {kind.value for kind in MaskKind} - {MaskKind.NONE.value}:
        raise InputError(f"{typed!r} is no kind of mask")
    return {**where, "kind": typed}
