"""The files of an environment that `a2mae init` proposes: each key with its evidence, what is not known marked."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from a2mae.config import TO_STATE
from a2mae.errors import InputError
from a2mae.sensors import BUILTIN_SENSORS, Sensor
from a2mae.stssd.recognise.catalog import CatalogFound
from a2mae.stssd.recognise.facts import RULE_KEYS, Fact, Product, Recognition, known_sensors, sensor_of
from a2mae.stssd.recognise.items import OF_ITEMS, side_m
from a2mae.stssd.recognise.layout import Layout, lay_out
from a2mae.stssd.recognise.recognise import state
from a2mae.tasks.parameters import EmbedParameters
from a2mae.tasks.recognise.facts import band_names

_AREA = "area.geojson"
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_NUMBER = re.compile(r"[-+]?[\d_]*\.?[\d_]*([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
CHAIN = ("ingest", "coregister", "tag", "prune", "pretrain", "report")
"""Stages that scenes without a simulated truth and without labels go through."""
_SKIPPED = "left out when a2mae init asked"


@dataclass(frozen=True)
class Area:
    """The place that scenes are wanted of.

    Attributes:
        bbox: West, south, east, north in degrees.
        geojson: Of its polygons, EPSG:4326.
    """

    bbox: tuple[float, float, float, float]
    geojson: str

    @property
    def side_m(self) -> float:
        """Shorter side of its box, metres."""
        return side_m(self.bbox)


@dataclass(frozen=True)
class Environment:
    """What an environment will be.

    Attributes:
        name: Its folder under `conf/`.
        products: Those that are used.
        sensors: Of each, None where it is not known yet.
        layout: Squares and recipes.
        files: Name -> text.
    """

    name: str
    products: tuple[Product, ...]
    sensors: tuple[Sensor | None, ...]
    layout: Layout
    files: Mapping[str, str]

    @property
    def to_state(self) -> list[str]:
        """What has to be stated before a run: product and key."""
        return [f"{product.name}: {key}" for product in self.products for key in product.unknown]


def propose(recognition: Recognition, name: str, products: Sequence[Product]) -> Environment:
    """Propose an environment.

    Args:
        recognition: What the folder holds.
        name: Of the environment.
        products: Those of the folder that are used, with what was stated of them; at least one.
    """
    sensors, own = _sensors_of(products)
    layout = lay_out(products, sensors)
    ingest = _ingest(recognition, products, sensors, own, layout)
    files = _files(name, ingest, layout, sensors, f"From the scenes of {recognition.root.name} to a pretrained model")
    return Environment(name, tuple(products), tuple(sensors), layout, files)


def propose_catalog(found: CatalogFound, name: str, area: Area | None, products: Sequence[Product]) -> Environment:
    """Propose an environment of scenes that a STAC API or catalog holds.

    Args:
        found: What it holds.
        name: Of the environment.
        area: Where places are laid out; None: wherever scenes are.
        products: Those that are used, with what was stated of them; at least one.
    """
    sensors, own = _sensors_of(products)
    within = math.inf if area is None else area.side_m
    layout = lay_out([replace(product, side_m=min(product.side_m, within)) for product in products], sensors)
    lines = [
        f"# What {plain(str(found.recognition.root))} holds of the area, as `a2mae init` found it; yours to change.",
        "ingest:",
        *(f"  {line}" for line in yaml.safe_dump(dict(found.source), sort_keys=False, width=120).splitlines()),
        "  locations:",
        f"    footprint_m: {layout.footprint_m}   # {layout.why[0]}",
        f"    min_scenes: {layout.min_scenes}",
    ]
    if area is not None:
        lines += ["    mode: polygons", f"    polygons: conf/{name}/{_AREA}   # the place that was asked for"]
    lines += _sensors(own)
    profiles = [(product, sensor) for product, sensor in zip(products, sensors, strict=True) if "match" in product.rule]
    lines += ["  stac_profiles:"] if profiles else []
    for product, sensor in profiles:
        lines += _rule(product, sensor)
    title = f"From the scenes of {found.recognition.root} to a pretrained model"
    files = _files(name, _lines(*lines), layout, sensors, title)
    if area is not None:
        files[_AREA] = area.geojson
    return Environment(name, tuple(products), tuple(sensors), layout, files)


def _sensors_of(products: Sequence[Product]) -> tuple[list[Sensor | None], list[Sensor]]:
    """The sensor of each product, None where it is not known yet; and those of them that are not built in."""
    own: dict[str, Sensor] = {}
    sensors: list[Sensor | None] = []
    for product in products:
        if "match" in product.rule or "files" in product.rule or "regex" in product.rule:
            sensor = sensor_of(product, own)
        else:  # items of a known sensor have its bands and grid, as the stage's own reader has checked
            sensor = known_sensors()[str(product.rule["sensor"].value)]
        if sensor is not None and BUILTIN_SENSORS.get(sensor.id) != sensor:
            own[sensor.id] = sensor
        sensors.append(sensor)
    return sensors, list(own.values())


def of_every_environment(name: str, title: str) -> dict[str, str]:
    """Write the files that every environment has: where its outputs lie, and the title of its report."""
    return {
        "globals.yml": _lines("# Where the outputs of this environment lie.", f"data_root: data/{name}"),
        "parameters_report.yml": _lines("report:", f"  title: {flow(title)}"),
    }


def _files(name: str, ingest: str, layout: Layout, sensors: Sequence[Sensor | None], title: str) -> dict[str, str]:
    files = {
        **of_every_environment(name, title),
        "catalog_ingest.yml": _lines(
            "# Nothing is simulated here: the manifest that ingest is given is empty.",
            "simulation:",
            "  filepath: conf/no_simulation.json",
        ),
        "parameters_chain.yml": _lines(
            "# The stages that `kedro run` chains; with labels of your own add classify, segment or detect_change.",
            f"chain: [{', '.join(CHAIN)}]",
        ),
        "parameters_ingest.yml": ingest,
        "parameters_coregister.yml": _coregister(layout),
        "parameters_pretrain.yml": _lines(
            "pretrain:",
            "  sampling:",
            "    fallback: other_date   # sets of one source: another date instead of the anchor again",
        ),
    }
    known = [sensor for sensor in sensors if sensor is not None]
    if known and EmbedParameters.model_validate({}).sensor not in [sensor.id for sensor in known]:
        files["parameters_embed.yml"] = _lines(
            "embed:", f"  sensor: {known[0].id}   # whose scene becomes a raster of embeddings", *_embedded(known[0])
        )
    return files


def _embedded(sensor: Sensor) -> list[str]:
    """The bands that are embedded, where they are not those of `embed` itself."""
    usual, there = EmbedParameters.model_validate({}).bands, band_names(sensor.bands)
    return [] if set(usual) <= set(there) else [f"  bands: {flow(list(there[: len(usual)]))}"]


def stated_before(products: Sequence[Product], folder: Path) -> list[Product]:
    """Fill what cannot be told from the files with what an earlier environment of this name states.

    Args:
        products: As the files tell them.
        folder: Of the environment, which may not be there.

    Raises:
        InputError: If its `parameters_ingest.yml` is no YAML.
    """
    path = folder / "parameters_ingest.yml"
    if not path.is_file():
        return list(products)
    before = _stated_rules(read_group(path))
    filled = []
    for product in products:
        rule = before.get(product.name, {})
        told = {key: rule[key] for key in product.unknown if rule.get(key) not in (None, TO_STATE)}
        if "match" in product.rule and isinstance(bands := told.get("bands"), Mapping):
            told["bands"] = {token: band for band, token in bands.items()}
        if "sensor" in told:
            written = str(told["sensor"])
            bases = [known for known in known_sensors() if written == known or written.startswith(f"{known}-")]
            told["sensor"] = max(bases, key=len, default=written)
        filled.append(state(product, **told))
    return filled


def _stated_rules(group: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Rules and STAC profiles of a file of the `ingest` group, by name."""
    ingest = group.get("ingest")
    found = [ingest.get(key) or () for key in ("rules", "stac_profiles")] if isinstance(ingest, Mapping) else []
    rules = [rule for one in found if isinstance(one, Sequence) for rule in one]
    return {str(rule["name"]): rule for rule in rules if isinstance(rule, dict) and "name" in rule}


def answered(before: Mapping[str, str], after: Mapping[str, str], folder: Path) -> bool:
    """Whether nothing but lines in place of ??? was stated in an environment since `a2mae init` wrote it.

    Args:
        before: What would be written if nothing had been stated.
        after: What would be written now, with what is stated and what follows from it.
        folder: The environment's folder.
    """
    parts: list[tuple[object, ...]] = []
    for name in after:
        path = folder / name
        there = read_group(path) if path.is_file() else None
        trio = (there, _values(before[name]) if name in before else None, _values(after[name]))
        parts += _parts(*(group.pop("ingest", group) if isinstance(group, dict) else group for group in trio))
    stated = any(there != first for there, first, _ in parts)
    # What was ??? may be stated in other words than are written: a sensor at another pixel size gets its own name.
    return stated and all(first == TO_STATE or there in (first, now, TO_STATE) for there, first, now in parts)


def _parts(there: object, first: object, now: object) -> list[tuple[object, ...]]:
    """Take three groups apart into what a person writes: keys of the group and of its rules."""
    if isinstance(there, dict) and isinstance(first, dict) and isinstance(now, dict):
        return [p for key in {**there, **now} for p in _parts(there.get(key), first.get(key), now.get(key))]
    lists = [one for one in (there, first, now) if isinstance(one, list) and all(isinstance(i, dict) for i in one)]
    if len(lists) == 3 and lists[0] and len({len(one) for one in lists}) == 1:
        return [part for trio in zip(*lists, strict=True) for part in _parts(*trio)]
    return [(there, first, now)]


def differences(files: Mapping[str, str], folder: Path) -> list[str]:
    """List how the files of an environment that is there differ from those that would be written, comments apart.

    Args:
        files: The proposal, name -> text.
        folder: The environment's folder.

    Returns:
        Lines of a unified diff; none where they say the same.
    """
    lines: list[str] = []
    for name, text in files.items():
        path = folder / name
        there = read_group(path) if path.is_file() else {}
        proposed = _values(text)
        if there != proposed:
            old, new = (yaml.safe_dump(value, sort_keys=False, width=120).splitlines() for value in (there, proposed))
            lines += difflib.unified_diff(old, new, f"{path} (there)", f"{path} (proposed)", lineterm="", n=2)
    return lines


def read_group(path: Path) -> dict[str, object]:
    """Read a file of parameters that somebody may have changed.

    Raises:
        InputError: If it is no YAML, has a key twice, or holds something else than names with values.
    """
    from a2mae.pipelines.environment_files import EnvironmentFilesError, read_yaml  # noqa: PLC0415 (Kedro: not for `--help`)

    try:
        return read_yaml(path)
    except EnvironmentFilesError as error:
        raise InputError(f"{error}, or name another environment with --name") from error


def _values(text: str) -> object:
    """Read a text that is to be a file of parameters as `read_group` would read the file."""
    from omegaconf import OmegaConf  # noqa: PLC0415 (with Kedro)

    return OmegaConf.to_container(OmegaConf.create(text))


def _ingest(
    recognition: Recognition,
    products: Sequence[Product],
    sensors: Sequence[Sensor | None],
    own: Sequence[Sensor],
    layout: Layout,
) -> str:
    lines = [
        f"# What the files of {plain(str(recognition.root))} are, as `a2mae init` read it; yours to change.",
        f"# {TO_STATE} is what they do not say: a run refuses it by name until it is stated.",
        "ingest:",
        f"  folder: {flow(str(recognition.root.resolve()))}",
        "  source: {kind: folder}",
        "  locations:",
        f"    footprint_m: {layout.footprint_m}   # {layout.why[0]}",
        f"    min_scenes: {layout.min_scenes}",
    ]
    lines += _sensors(own)
    lines.append("  rules:")
    for product, its_sensor in zip(products, sensors, strict=True):
        lines += _rule(product, its_sensor)
    lines.append("  exclude:")
    for aside in recognition.asides:
        key, value = aside.pattern
        lines.append(f"    - {flow({key: value, 'why': aside.why})}")
    used = {product.name for product in products}
    for product in (product for product in recognition.products if product.name not in used):
        key = "files" if "files" in product.rule else "regex"
        lines.append(f"    - {flow({key: product.rule[key].value, 'why': _SKIPPED})}")
    if lines[-1] == "  exclude:":
        lines[-1] = "  exclude: []"
    return _lines(*lines)


def _sensors(own: Sequence[Sensor]) -> list[str]:
    """Lines of the sensors that are not built in."""
    lines = ["  sensors:" if own else "  sensors: []"]
    for sensor in own:
        lines += [
            f"    - id: {sensor.id}",
            f"      title: {flow(sensor.title)}",
            f"      gsd_m: {sensor.gsd_m:g}",
            "      bands:",
        ]
        lines += [f"        - {flow(band)}" for band in _dicts(sensor)]
        encoding = sensor.encoding
        lines.append(
            "      encoding: "
            + flow({"dtype": encoding.dtype, "scale": encoding.scale, "offset": encoding.offset,
                     "nodata": encoding.nodata, "units": encoding.units.value})
        )  # fmt: skip
        if sensor.platforms:
            lines.append(f"      platforms: {flow(list(sensor.platforms))}")
    return lines


def _rule(product: Product, sensor: Sensor | None) -> list[str]:
    lines = [f"    - name: {flow(product.name)}   # {plain(product.title)}"]
    for key in RULE_KEYS:
        fact = product.rule.get(key)
        if fact is None or (fact.known and fact.value == OF_ITEMS):
            continue
        if key == "sensor" and sensor is not None:
            fact = Fact(sensor.id, fact.evidence)
        if key == "bands" and sensor is not None:
            fact = Fact(_in_names_of(fact.value, sensor), fact.evidence)
        if key == "bands" and "match" in product.rule and isinstance(fact.value, Mapping):
            fact = Fact({band: token for token, band in fact.value.items()}, fact.evidence)
        value = flow(fact.value) if fact.known else TO_STATE
        hint = "" if fact.known or fact.suggestion is None else f"; perhaps {flow(fact.suggestion)}"
        lines.append(f"      {key}: {value}   # {plain(fact.evidence + hint)}")
    return lines


def _in_names_of(bands: object, sensor: Sensor) -> object:
    """Bands as they were stated, by the sensor's own names; those that it does not have are skipped."""
    names = {name: band.name for band in reversed(sensor.bands) for name in (band.common_name, band.name) if name}
    if isinstance(bands, Mapping):
        return {token: names[band] for token, band in bands.items() if band in names}
    return [names.get(str(band)) for band in bands] if isinstance(bands, Sequence) else bands


def _dicts(sensor: Sensor) -> list[dict[str, object]]:
    return [
        {
            "name": band.name,
            "common_name": band.common_name,
            "center_wavelength_nm": band.center_wavelength_nm,
            "full_width_half_max_nm": band.full_width_half_max_nm,
            "gsd_m": band.gsd_m,
        }
        for band in sensor.bands
    ]


def _coregister(layout: Layout) -> str:
    lines = ["# Which images make a set: " + "; ".join(layout.why[1:]) + ".", "coregister:", "  recipes:"]
    lines += [
        f"    {name}: {'null' if recipe is None else flow(dict(recipe))}" for name, recipe in layout.recipes.items()
    ]
    if layout.pool_locations is not None:
        lines += [
            "  registration:",
            f"    pool_locations: {layout.pool_locations}   # small scenes: one place speaks for its neighbours",
        ]
    return _lines(*lines)


def flow(value: object) -> str:
    """Write a value on one line of YAML."""
    text = yaml.dump(value, Dumper=_Flow, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


class _Flow(yaml.SafeDumper):
    """Writes text so that OmegaConf reads the same text again.

    `1e5` is a number to it, `${...}` a question where it is no key, and a line break that stands as such may become
    another.
    """

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:  # noqa: ANN401 (as the base has it)
        """Write keys as they are: OmegaConf asks nothing of them."""
        node = super().represent_mapping(tag, mapping, flow_style)
        for (key, _), name in zip(node.value, mapping, strict=True):
            if isinstance(name, str):
                key.value = name
        return node


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    asked = _INTERPOLATION.sub(lambda found: f"{found[1] * 2}\\${{", text)
    style = '"' if text.splitlines() not in ([], [text]) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", asked, style="'" if _NUMBER.fullmatch(text) else style)


_Flow.add_representer(str, _text)


def plain(text: str) -> str:
    """Text of files and items for a comment: a line break in it would end the comment and begin a key."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
