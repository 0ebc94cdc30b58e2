"""What the parameters of a task are for labels that were looked at; each with its evidence, or asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from a2mae.errors import plural
from a2mae.sensors import BUILTIN_SENSORS, Band, Sensor, Units
from a2mae.stssd.recognise import words
from a2mae.stssd.recognise.facts import Fact, asked
from a2mae.stssd.recognise.measure import sentinel2_offset
from a2mae.tasks.datasets.formats import FORMATS
from a2mae.tasks.datasets.task_data import IGNORE
from a2mae.tasks.recognise.look import MOST_CLASSES, Column, Images, Kind, Look
from a2mae.tasks.registry import Task

KEYS = (
    "task", "head", "bands", "data.labels", "data.folder", "data.class_property", "data.value_property", "data.units",
    "data.outside", "data.buffer_m", "data.class_names", "data.class_values", "data.ignore", "data.format",
    "data.file_bands", "data.offset", "data.gsd_m", "data.archive.sensors", "data.archive.bands",
    "data.archive.chip_px",
)  # fmt: skip
"""Parameters of a task that are proposed, in the order in which they are asked and written."""
_CLASS_WORDS = (
    "class", "classes", "class_name", "classname", "label", "category", "landcover", "land_cover", "lulc", "crop",
)  # fmt: skip
_VALUE_WORDS = ("value", "values")
_USUAL = ("red", "green", "blue", "nir", "swir16", "swir22")
_CHIP_PX = 64
_Put = Callable[[str, Fact], Fact]
"""Takes what is known of a key; returns it, or what somebody has stated instead."""


@dataclass(frozen=True)
class Archive:
    """What an environment has seen.

    Attributes:
        sensors: With how many images each, those of most images first.
        footprint_m: Side of its squares.
        bands_at_once: How many bands its encoder takes; None for any number.
    """

    sensors: tuple[tuple[Sensor, int], ...] = ()
    footprint_m: float = 0.0
    bands_at_once: int | None = None


def propose_facts(look: Look, stated: Mapping[str, object], archive: Archive) -> dict[str, Fact]:
    """Say what the parameters of the task are.

    Args:
        look: The labels.
        stated: By key, what somebody has said already; the rest follows from it.
        archive: What the environment has seen.

    Returns:
        By key, in the order of `KEYS`; without those that keep their default.
    """
    facts: dict[str, Fact] = {}

    def put(key: str, fact: Fact) -> Fact:
        first = key not in facts  # a later one follows from what was stated
        facts[key] = Fact(stated[key], "stated") if first and key in stated else fact
        return facts[key]

    where = "data.labels" if look.kind.on_archive else "data.folder"
    put(where, Fact(str(look.path.resolve()), f"{look.kind.value}, {plural(look.count, 'label')}"))
    task = put("task", _task(look))
    if task.value is None:
        return _sorted(facts)
    kind = Task(str(task.value)).kind
    if kind.values:
        _values(look, put)
    elif look.kind is not Kind.PAIRS:
        _classes(look, put)
    if look.geometry == "lines":
        put("data.buffer_m", asked("lines have no area: up to how many metres is the ground beside one of its class"))
    if look.images is not None:
        _images(look.images, look.kind, put)
    if look.kind.on_archive:
        _archive(archive, put)
    _bands(look, facts, archive, put)
    return _sorted(facts)


def picture_facts(images: Images) -> dict[str, Fact]:
    """Say what pictures without labels hold.

    Args:
        images: Those that were looked at.

    Returns:
        Keys of the group `pictures`; metres per pixel are not asked for.
    """
    facts: dict[str, Fact] = {}

    def put(key: str, fact: Fact) -> Fact:
        return facts.setdefault(key.removeprefix("data."), fact)

    _images(images, Kind.CLASS_FOLDERS, put)
    return {key: fact for key, fact in facts.items() if key != "gsd_m"}


def _sorted(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return {key: facts[key] for key in KEYS if key in facts}


def _class_columns(look: Look) -> list[str]:
    """Attributes that may name classes: few different words or whole numbers, not a number per row."""
    return [
        name for name, one in look.columns.items() if one.counts and one.whole | (one.span is None) and not one.every
    ]


def _value_columns(look: Look) -> list[str]:
    return [
        name
        for name, one in look.columns.items()
        if one.span is not None and one.span[0] < one.span[1] and not _counts_rows(name, one)
    ]


def _counts_rows(name: str, column: Column) -> bool:
    return column.whole and column.every and name.lower() not in _VALUE_WORDS


def _task(look: Look) -> Fact:
    pixels = look.columns.get("pixels")
    match look.kind:
        case Kind.PAIRS:
            return Fact(Task.DETECT_CHANGE.value, "A/, B/ and label/: before, after and what changed")
        case Kind.CLASS_FOLDERS:
            return Fact(Task.CLASSIFY.value, "a folder per class: an image has one")
        case Kind.VALUES:
            return Fact(Task.ESTIMATE.value, "rasters of values beside the images")
        case Kind.MASKS:
            return Fact(Task.SEGMENT.value, "a mask of class numbers beside each image")
        case Kind.RASTER:
            assert pixels is not None
            if pixels.counts:
                return Fact(Task.SEGMENT.value, f"{len(pixels.counts)} different whole numbers: classes of pixels")
            return Fact(Task.ESTIMATE.value, f"{_span(pixels)}: values of pixels")
        case Kind.TABLE if "classes" in look.columns:
            return Fact(Task.CLASSIFY.value, "labels.csv has a column 'classes': of whole images")
        case Kind.TABLE:
            return Fact(Task.ESTIMATE.value, "labels.csv has no column 'classes', but numbers: values of whole images")
    classes, values = _class_columns(look), _value_columns(look)
    words_there = [name for name in classes if look.columns[name].span is None]
    named = [name for name in classes if name.lower() in _CLASS_WORDS]
    if "value" in values and not named:
        return Fact(Task.ESTIMATE.value, "an attribute 'value' of numbers")
    if not classes and values:
        return Fact(Task.ESTIMATE.value, f"attributes are numbers: {', '.join(values)}")
    if not words_there and not named and values:
        return asked(f"{', '.join(values)}: whole numbers, which may be classes or values", Task.SEGMENT.value)
    if look.geometry == "points":
        return asked(
            "points with classes: classify learns a window around each, segment the pixel that it lies in",
            Task.CLASSIFY.value,
        )
    return Fact(Task.SEGMENT.value, f"{look.geometry} with classes: every pixel in them is labelled")


def _span(column: Column) -> str:
    low, high = column.span or (0.0, 0.0)
    return f"{low:g} to {high:g}, {'more than ' + str(MOST_CLASSES) + ' whole' if column.whole else 'fractions'}"


def _attribute(names: Sequence[str], look: Look, usual: Sequence[str], what: str) -> Fact:
    """Choose the attribute that holds classes or values."""
    named = [name for name in names if name.lower() in usual]
    shown = "; ".join(f"{name}: {holds(look.columns[name])}" for name in names) or "none"
    if len(named) == 1:
        return Fact(named[0], f"an attribute of that name; {shown}")
    if len(names) == 1:
        return asked(f"the one attribute that may hold {what}; {shown}", names[0])
    return asked(f"attributes that may hold {what}; {shown}", named[0] if named else None)


def holds(column: Column) -> str:
    """Write the words or numbers of a column with their counts, or its span."""
    if not column.counts or (column.span is not None and not column.whole):
        return _span(column)
    counts = [f"{name} ({count:,})" for name, count in list(column.counts.items())[:8]]
    return ", ".join(counts) + (" …" if len(column.counts) > 8 else "")


def _classes(look: Look, put: _Put) -> None:
    if "pixels" in look.columns:
        _numbers(look.columns["pixels"], put)
        return
    if look.kind is Kind.CLASS_FOLDERS:
        return
    name: object = "classes"
    if look.kind is not Kind.TABLE:
        name = put("data.class_property", _attribute(_class_columns(look), look, _CLASS_WORDS, "classes")).value
    column = look.columns.get(str(name))
    if column is None:
        return
    classes = list(column.counts)
    if len(classes) == 1 and look.kind is not Kind.TABLE:
        rest = put(
            "data.outside",
            asked(f"one class alone, {classes[0]}: the ground in none of the features is another, under a name"),
        ).value
        classes = classes if rest is None else [str(rest), *classes]
    if len(classes) > 1:
        put("data.class_names", Fact(classes, holds(column)))


def _numbers(pixels: Column, put: _Put) -> None:
    """Classes of pixels are numbers, and nothing in a raster says what they stand for."""
    numbers = [int(number) for number in pixels.counts]
    if not numbers:
        put("data.class_names", asked(f"{_span(pixels)}: numbers of too many kinds for classes"))
        return
    total = sum(pixels.counts.values())
    shares = ", ".join(f"{number} ({count / total:.1%})" for number, count in pixels.counts.items())
    known = numbers_to_name(pixels)
    fact = put("data.class_names", asked(f"numbers {shares}: a name for each of {_listed(known)}, - where it is none"))
    names = fact.value if isinstance(fact.value, Sequence) and not isinstance(fact.value, str) else None
    if names is None or len(names) != len(known):
        put("data.class_values", Fact(known, "the numbers that occur"))
        return
    named = [(name, number) for name, number in zip(names, known, strict=True) if name is not None]
    put("data.class_names", Fact([name for name, _ in named], "stated"))
    put("data.class_values", Fact([number for _, number in named], "the numbers that are named"))
    if ignored := [number for number in numbers if number not in {kept for _, kept in named} and number != IGNORE]:
        put("data.ignore", Fact(ignored, "the numbers that are no class"))


def numbers_to_name(pixels: Column) -> list[int]:
    """Return the numbers of a raster that may be classes: 255 is none, but in black and white pictures."""
    numbers = [int(number) for number in pixels.counts]
    return [number for number in numbers if number != IGNORE or len(numbers) == 2]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _values(look: Look, put: _Put) -> None:
    name: object = None
    if "pixels" in look.columns:
        put("data.value_property", asked(f"what the values of {_span(look.columns['pixels'])} are of", "value"))
    else:
        name = put("data.value_property", _attribute(_value_columns(look), look, _VALUE_WORDS, "values")).value
    column = look.columns.get(str(name))
    told = "" if column is None else f"{_span(column)}; "
    if put("data.units", asked(f"{told}their units, as m or t/ha, or none", "none")).value == "none":
        put("data.units", Fact("", "stated: none"))
    if look.kind is Kind.TABLE:
        put("head", Fact("mean", "a value per image"))


def _images(images: Images, kind: Kind, put: _Put) -> None:
    """What image files beside the labels hold."""
    bands, gsd_m = images.bands, images.gsd_m
    said = f"{images.first.name}: {plural(bands.count, 'band')} of {bands.dtype}"
    fact = put("data.format", _format(images, kind, said))
    sensor = BUILTIN_SENSORS.get(str(fact.value))
    if gsd_m is None and fact.known:
        usual = FORMATS["rgb_bytes"].gsd_m if sensor is None else sensor.gsd_m
        put("data.gsd_m", asked("the images do not say where they lie: metres per pixel", usual))
    if sensor is None:
        return
    hint = words.hint_of(str(images.first))
    if not any(words.described(bands, hint)[1]):
        usual_order = list(sensor.band_names) if len(sensor.bands) == bands.count else None
        put("data.file_bands", asked(f"{said} without a description", usual_order))
    reflects = sensor.encoding.units is Units.REFLECTANCE and not bands.is_float
    if reflects and sensor.encoding.offset and set(zip(bands.scales, bands.offsets, strict=True)) == {(1.0, 0.0)}:
        if sensor.id.startswith("sentinel-2"):
            put("data.offset", sentinel2_offset(images.darkest, is_integer=True))
        else:
            put("data.offset", asked(f"{said} without a tag: the physical value of 0", sensor.encoding.offset))


def _format(images: Images, kind: Kind, said: str) -> Fact:
    bands = images.bands
    if bands.dtype == "uint8" and bands.count - (bands.alpha is not None) == 3:
        return Fact("rgb_bytes", f"{said}: pictures in red, green and blue")
    hint = words.hint_of(str(images.first))
    family, _, _, level = words.described(bands, hint)
    if bands.count == 13 and bands.dtype == "uint16" and kind is Kind.CLASS_FOLDERS:
        return asked(f"{said}, in a folder per class: so EuroSAT delivers them; or a sensor's id", "eurosat_ms")
    surface = any(text.upper().startswith("SR_B") for text in bands.descriptions)
    fact = words.sensor_fact(family, level, hint, surface=surface, count=bands.count, gsd_m=images.gsd_m or 0.0)
    if fact.known and fact.value not in BUILTIN_SENSORS:
        return asked(f"{fact.evidence}: {fact.value} is described in no environment", None)
    return Fact(fact.value, f"{said}; {fact.evidence}", fact.suggestion)


def _archive(archive: Archive, put: _Put) -> None:
    if not archive.sensors:
        put("data.archive.sensors", asked("no scenes are known yet: whose images the labels are laid on"))
        return
    optical = [one for one in archive.sensors if one[0].encoding.units is not Units.BACKSCATTER_DB] or archive.sensors
    sensor, count = optical[0]
    others = ", ".join(other.id for other, _ in archive.sensors if other.id != sensor.id)
    chosen = put(
        "data.archive.sensors",
        Fact([sensor.id], f"{plural(count, 'image')}, most of all" + (f"; there are {others}, too" if others else "")),
    )
    main = next((one for one, _ in archive.sensors if [one.id] == list(_words(chosen.value))[:1]), sensor)
    put("data.archive.bands", Fact(list(band_names(main.bands)), f"all bands of {main.id}"))
    side_px = round(archive.footprint_m / main.gsd_m)
    parts = -(-side_px // _CHIP_PX)
    if side_px >= 16:
        why = f"squares of {archive.footprint_m:g} m are {side_px} pixels of {main.gsd_m:g} m"
        put("data.archive.chip_px", Fact(side_px // parts, why))


def _words(value: object) -> Sequence[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def band_names(bands: Sequence[Band]) -> tuple[str, ...]:
    """Common names where they tell bands apart, else names."""
    common = [band.common_name for band in bands]
    return tuple(
        band.common_name if band.common_name and common.count(band.common_name) == 1 else band.name for band in bands
    )


def _bands(look: Look, facts: Mapping[str, Fact], archive: Archive, put: _Put) -> None:
    """What the encoder sees: the usual bands that are there, the first ones again where views are not full."""
    there: Sequence[str] = _words(facts["data.archive.bands"].value) if "data.archive.bands" in facts else ()
    if look.images is not None and facts["data.format"].known:
        name = str(facts["data.format"].value)
        sensor = FORMATS[name].sensor if name in FORMATS else BUILTIN_SENSORS.get(name)
        there = () if sensor is None else band_names(sensor.bands)
        listed = _words(facts["data.file_bands"].value) if "data.file_bands" in facts else ()
        described = words.described(look.images.bands, words.hint_of(str(look.images.first)))[1]
        names = {} if sensor is None else dict(zip(sensor.band_names, there, strict=True))
        there = [names.get(band, band) for band in listed or [one for one in described if one]] or there
    if not there:
        return
    wanted = [band for band in _USUAL if band in there or (band == "nir" and "nir08" in there)] or list(there)
    wanted = ["nir08" if band == "nir" and "nir" not in there else band for band in wanted]
    at_once = archive.bands_at_once
    if at_once and len(wanted) > at_once:
        wanted += wanted[: -len(wanted) % at_once]
    told = "any number of bands" if at_once is None else f"{plural(at_once, 'band')} at a time"
    put("bands", Fact(wanted, f"of {', '.join(there)}; the encoder takes {told}"))
