"""Model card and data-set card: Markdown with front matter, as model hubs read it, filled with this run's figures.

The `report` stage writes them, the first that knows the scores; so a change of licence or wording trains nothing
again. A card goes beside what it describes as `README.md` when that is passed on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from a2mae.errors import plural
from a2mae.report import text
from a2mae.report.inputs import CardParameters, ReportInputs, records
from a2mae.report.sections.pretraining import nothing_held_out
from a2mae.report.sections.scores import comparisons
from a2mae.report.sections.tasks import title_of
from a2mae.sensors import BUILTIN_SENSORS, Sensor, UnknownBandError
from a2mae.tasks.registry import Task

if TYPE_CHECKING:
    import pandas as pd

_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class FirstCall:
    """What the example of a model card calls the encoder with.

    Attributes:
        sensor: Id of the model's first sensor.
        bands: Its bands that are fed, in order.
        order: Which bands the encoder reads at once and in which order, as a sentence without its full stop.
        scale: Physical units per count, as Python reads it; of a file this may be another.
        offset: Physical value of a count of zero, likewise.
        units: Of the physical values, in words.
        gsd_m: Distance between pixels in metres, or `GSD_M` where the sensor is not known.
        patch_px: What the sides of an image are a multiple of.
        zero_bands: Bands of zeros that fill the sensor up to what the encoder reads.
        wavelengths_nm: Centre wavelengths of `bands`; empty where the encoder does not ask for them.
    """

    sensor: str
    bands: tuple[str, ...]
    order: str
    scale: str
    offset: str
    units: str
    gsd_m: str
    patch_px: int
    zero_bands: int
    wavelengths_nm: tuple[float, ...]


def first_call(inputs: ReportInputs, config: Mapping[str, Any], spec: Mapping[str, Any]) -> FirstCall:
    """Make the example for the first sensor of a model.

    Args:
        inputs: The chain's outputs; its store knows the user's own sensors.
        config: The model's `config.json`.
        spec: The training's `run/spec.json`; empty where the model directory has none.
    """
    sensor_id, names = next(iter(config["bands"].items()))
    sensor = _sensor(inputs, sensor_id)
    kwargs = config["kwargs"]
    mode = spec.get("sampling", {}).get("bands", "draw")
    by_wavelength = kwargs.get("bands") == "wavelength"
    count = len(names) if by_wavelength else int(kwargs.get("in_chans", 3))
    bands = _bands(sensor, names, count, every=by_wavelength or mode == "all")
    return FirstCall(
        sensor=sensor_id,
        bands=bands,
        order=_order(mode, count, by_wavelength=by_wavelength),
        scale=f"{sensor.encoding.scale:g}" if sensor else "1.0",
        offset=f"{sensor.encoding.offset:g}" if sensor else "0.0",
        units=sensor.encoding.units.value if sensor else "physical values",
        gsd_m=str(float(sensor.gsd_m)) if sensor else "GSD_M",
        patch_px=int(kwargs.get("patch_size", 16)),
        zero_bands=count - len(bands),
        wavelengths_nm=_wavelengths(sensor, bands) if by_wavelength else (),
    )


def _sensor(inputs: ReportInputs, sensor_id: str) -> Sensor | None:
    if inputs.store is not None and sensor_id in inputs.store.sensors:
        return inputs.store.sensor(sensor_id)
    return BUILTIN_SENSORS.get(sensor_id)


def _order(mode: str, count: int, *, by_wavelength: bool) -> str:
    if by_wavelength:
        return "any bands of one sensor, in any order, with their centre wavelengths as `wavelength_nm`"
    if mode == "rgb":
        return "red, green and blue of one sensor, in this order"
    if mode == "all":
        return f"all bands of one sensor in the order below; of a sensor with fewer than {count}, zeros after them"
    return f"{count} bands of one sensor, any of those below in any order (the training drew them at random)"


def _bands(sensor: Sensor | None, names: Sequence[str], count: int, *, every: bool) -> tuple[str, ...]:
    """Choose red, green and blue where three are fed and the sensor has them; else the first ones."""
    if every or count != len(_RGB) or sensor is None:
        return _repeated(names, count) if not every else tuple(names)
    try:
        shown = tuple(sensor.bands[sensor.band_index(colour)].name for colour in _RGB)
    except UnknownBandError:
        return _repeated(names, count)
    return shown if set(shown) <= set(names) else _repeated(names, count)


def _repeated(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Repeat names from the first until there are so many, as the training does."""
    return tuple(names[index % len(names)] for index in range(count))


def _wavelengths(sensor: Sensor | None, bands: Sequence[str]) -> tuple[float, ...]:
    if sensor is None:
        return ()
    return tuple(float(sensor.bands[sensor.band_index(name)].center_wavelength_nm) for name in bands)


_MANY_REASONS = 12


def model_card(inputs: ReportInputs, card: CardParameters) -> str | None:
    """Write the card of the pretrained model.

    Args:
        inputs: The chain's outputs.
        card: What no run can know.

    Returns:
        Markdown; None where no model was trained.
    """
    if inputs.model_dir is None:
        return None
    card = _named(card, inputs)
    config, metrics = (_json(inputs, name) for name in ("config.json", "metrics.json"))
    started = {task.name: task.start for task in inputs.tasks if task.start is not None}
    found = comparisons(inputs.scores) if inputs.scores is not None else []
    found = [item for item in found if item.task not in started]  # what others' weights reach is not this model's
    front: dict[str, object] = {
        "license": card.licence,
        "library_name": "a2mae",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["earth-observation", "satellite", "self-supervised", str(config["method"])],
        "datasets": [card.dataset_name],
    }
    if found:
        front["model-index"] = [{"name": card.model_name, "results": [_result(item) for item in found]}]
    kwargs = config["kwargs"]
    return _render(
        "model_card.md.j2",
        front,
        inputs,
        card,
        config=config,
        metrics=metrics,
        kwargs=kwargs,
        parameters=text.count(metrics["parameters"]),
        held_out_loss=_held_out_loss(metrics),
        trained_on=_trained_on(inputs),
        use=first_call(inputs, config, _spec(inputs.model_dir)),
        comparisons=found,
        started=[(title_of(name), start) for name, start in started.items()],
        frozen=_frozen(inputs.scores),
    )


def dataset_card(inputs: ReportInputs, card: CardParameters) -> str | None:
    """Write the card of the image sets.

    Args:
        inputs: The chain's outputs.
        card: What no run can know.

    Returns:
        Markdown; None where no image sets were built and tagged.
    """
    if inputs.sets is None or inputs.images is None or inputs.store is None:
        return None
    card = _named(card, inputs)
    images, sets, store = inputs.images, inputs.sets, inputs.store
    front: dict[str, object] = {
        "license": card.licence,
        "pretty_name": card.dataset_name,
        "tags": ["earth-observation", "satellite", "multi-sensor", "time-series", "co-registered"],
        "size_categories": [_size_category(len(images))],
    }
    per_sensor = []
    for name in store.sensors:
        sensor, of_sensor = store.sensor(name), images[images["sensor"] == name]
        per_sensor.append(
            (
                name,
                text.count(len(of_sensor)),
                f"{sensor.gsd_m:g} m",
                ", ".join(band.common_name or band.name for band in sensor.bands),
                sensor.encoding.units,
                f"{text.day(of_sensor['datetime'].min())} to {text.day(of_sensor['datetime'].max())}",
            )
        )
    splits = sets.assign(kept=sets["kept"].astype(bool)).groupby("split", sort=True)
    measured = images["residual_px"].dropna()
    return _render(
        "dataset_card.md.j2",
        front,
        inputs,
        card,
        store=store,
        images=images,
        sets=sets,
        locations=sets["location_id"].nunique(),
        span=f"{text.day(images['datetime'].min())} to {text.day(images['datetime'].max())}",
        corners=_corners(sets),
        per_sensor=per_sensor,
        kinds=[(str(k), text.count(v)) for k, v in sets["kind"].value_counts().sort_index().items()],
        splits=[
            (str(split), text.count(of["location_id"].nunique()), text.count(len(of)), text.count(of["kept"].sum()))
            for split, of in splits
        ],
        registration=[(str(k), text.count(v)) for k, v in images["registration"].value_counts().items()],
        residual_px=text.number(float(measured.median()) if len(measured) else None, 3),
        valid=text.percent(float(images["valid_fraction"].mean())),
        rejected=[*_reasons(inputs.refused_scenes), *_reasons(inputs.rejected_images)],
    )


def _corners(sets: pd.DataFrame) -> list[str]:
    """South-west and north-east corner of all footprints."""
    west, south, east, north = sets["geometry"].total_bounds
    return [text.position(west, south), text.position(east, north)]


def _named(card: CardParameters, inputs: ReportInputs) -> CardParameters:
    """Name model and data by what they are made of, where nobody has named them."""
    if inputs.simulation is not None:
        names = {"model_name": "a2mae demo", "dataset_name": "a2mae demo image sets"}
    else:
        seen = sorted(inputs.images["sensor"].unique()) if inputs.images is not None else []
        sensors = text.listed(seen) if seen else "scenes of one's own"
        method = "a2mae" if inputs.model_dir is None else str(_json(inputs, "config.json")["method"])
        names = {"model_name": f"{method} on {sensors}", "dataset_name": f"Image sets of {sensors}"}
    return card.model_copy(update={key: name for key, name in names.items() if getattr(card, key) is None})


def _render(
    template: str, front: Mapping[str, object], inputs: ReportInputs, card: CardParameters, **given: object
) -> str:
    # Markdown, not HTML: names go through `plain`, which leaves neither markup nor table bars in them.
    environment = Environment(
        autoescape=False,  # noqa: S701 (see above)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "number": text.number}
    source = resources.files("a2mae.report") / "page_assets" / template
    body = environment.from_string(source.read_text("utf-8")).render(
        card=card, simulated=inputs.simulation is not None, plural=plural, **given
    )
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def _plain(value: object) -> str:
    """Make one line of text that Markdown shows as it is."""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", "\\|").replace("`", "'")


def _json(inputs: ReportInputs, name: str) -> dict[str, Any]:
    assert inputs.model_dir is not None
    return dict(json.loads((inputs.model_dir / name).read_text("utf-8")))


def _spec(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "run" / "spec.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _result(item: Any) -> dict[str, object]:  # noqa: ANN401 (a Comparison; the hub's schema has no types)
    value, low, high = item.pretrained
    return {
        "task": {"type": Task(item.task).kind.hub_task},
        "dataset": {"name": item.data, "type": item.data},
        "metrics": [
            {
                "type": item.metric,
                "value": round(float(value), 4),
                "name": f"{item.label}, finetuned; 95 % {low:.3f} to {high:.3f}",
            }
        ],
    }


def _trained_on(inputs: ReportInputs) -> tuple[tuple[str, str], ...]:
    """Count sets, images and locations of the training split that pruning kept."""
    if inputs.sets is None or inputs.images is None:
        return ()
    used = inputs.sets[inputs.sets["kept"].astype(bool) & (inputs.sets["split"] == "train")]
    images = inputs.images[inputs.images["set_id"].isin(used["set_id"])]
    return (
        ("image sets", text.count(len(used))),
        ("images", text.count(len(images))),
        ("locations", text.count(used["location_id"].nunique())),
        ("dates", f"{text.day(images['datetime'].min())} to {text.day(images['datetime'].max())}"),
    )


def _held_out_loss(metrics: Mapping[str, Any]) -> str:
    if nothing_held_out(metrics):
        return "not measured: no validation locations"
    loss = metrics.get("held_out_loss")
    return text.number(loss, 4) if isinstance(loss, int | float) else "not measured"


def _frozen(scores: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """List kNN and linear probe at the data's own GSD: every encoder's value with its interval."""
    if scores is None:
        return []
    own = scores[(scores["gsd_m"] == scores["native_gsd_m"]) & scores["mode"].isin(["knn", "linear_probe"])]
    own = own[own["metric"] != "knn_both_coarse"]  # at the data's own GSD nothing is coarse: equal to the other reading
    return [
        (
            str(row["data"]),
            str(row["mode"]),
            str(row["metric"]),
            str(row["model"]),
            f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
        )
        for row in records(own.sort_values(["data", "mode", "metric", "model"]))
    ]


def _reasons(table: pd.DataFrame | None) -> Sequence[tuple[str, str]]:
    if table is None or not len(table):
        return ()
    counts = table["reason"].value_counts()
    return [(str(reason), text.count(number)) for reason, number in counts.head(_MANY_REASONS).items()]


def _size_category(count: int) -> str:
    """Name the hub's class of size."""
    names = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
    return next((name for limit, name in names.items() if count < limit), "n>10M")
