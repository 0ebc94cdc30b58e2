"""Make a folder that a model hub takes as it is, with a STAC item that says what the model reads and gives.

The item follows STAC 1.1 with the Machine Learning Model extension (MLM) 1.4.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from a2mae.errors import InputError
from a2mae.files import file_digest, write_bytes, write_json
from a2mae.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Json, load_encoder, read_config
from a2mae.models.encoder import ENCODINGS, Encoder

if TYPE_CHECKING:
    from a2mae.sensors import Sensor

CARD_FILE, EXAMPLE_FILE, ITEM_FILE, LICENCE_FILE = "README.md", "example.py", "stac-item.json", "LICENSE"
MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_ALWAYS = {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
"""A model is of no day: how the extension's own examples say so."""


def write_hub_folder(
    directory: Path,
    folder: Path,
    *,
    licence: str | None = None,
    card: Path | None = None,
    licence_file: Path | None = None,
    sensors: Mapping[str, Sensor] | None = None,
) -> None:
    """Copy a model directory with a card, an example that runs, its licence and a STAC item beside it.

    Args:
        directory: Written by `save_pretrained`.
        folder: To fill.
        licence: SPDX identifier in lower case, as hubs have it, or `other`; None: as the card says.
        card: That the `report` stage has written; None: a short one is made.
        licence_file: Its text, copied as LICENSE; None: no such file.
        sensors: What is known of the model's sensors: the item then has the GSD of each band.

    Raises:
        InputError: If no licence is stated, or two are, or the card is no text.
        CheckpointError: If the directory is none, or its encoder cannot be loaded.
    """
    encoder, config = load_encoder(directory), read_config(directory)
    try:
        text = card.read_text("utf-8") if card is not None else None
    except ValueError as error:
        raise InputError(f"{card} is no text of UTF-8 ({error}): take the card that the report has written") from error
    licence = _licence(licence, text, card)
    text = _short_card(encoder, config, licence) if text is None else text.replace("PATH", ".")
    shutil.copytree(directory, folder, dirs_exist_ok=True)
    write_bytes(folder / CARD_FILE, text.encode())
    write_bytes(folder / EXAMPLE_FILE, _example(encoder, config, sensors or {}).encode())
    if licence_file is not None:
        shutil.copyfile(licence_file, folder / LICENCE_FILE)
    write_json(folder / ITEM_FILE, stac_item(directory, licence=licence, sensors=sensors))


def stac_item(
    directory: Path, *, licence: str = "other", sensors: Mapping[str, Sensor] | None = None
) -> dict[str, Json]:
    """Describe a model directory as a STAC item with the MLM extension: inputs, bands, normalisation, GSD, output.

    Args:
        directory: Written by `save_pretrained`.
        licence: As STAC has it: an SPDX identifier, or `other`.
        sensors: What is known of the model's sensors.

    Raises:
        CheckpointError: If the directory is none, or its encoder cannot be loaded.
    """
    encoder, config = load_encoder(directory), read_config(directory)
    name, digest = str(config["model"]), file_digest(directory / WEIGHTS_FILE)
    width = encoder.config.embed_dim
    # In the item for MLM, in the asset for STAC 1.1, which allows them in an item only then.
    bands: dict[str, Json] = {"bands": found} if (found := _bands(config, sensors or {})) else {}
    start = cast("dict[str, Json]", config.get("start") or {})
    source = start.get("weights") or config.get("data_manifest_hash")
    properties: dict[str, Json] = {
        **_ALWAYS,
        "title": name,
        "description": f"{name}: an encoder of satellite images, pretrained by masked image modelling.",
        "license": licence,
        "gsd": encoder.config.gsd_reference_m,
        **bands,
        "mlm:name": name,
        "mlm:architecture": "Vision Transformer",
        "mlm:tasks": ["similarity-search"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "mlm:pretrained": True,
        "mlm:pretrained_source": str(source or "not stated"),
        "mlm:hyperparameters": config["kwargs"],
        "mlm:input": [*_image_inputs(encoder, config), *_other_inputs(encoder)],
        "mlm:output": [
            {
                "name": "features",
                "description": "Tokens, the image's first, then one per patch in rows; the final norm is applied.",
                "tasks": ["similarity-search"],
                "result": _structure([-1, -1, width], ["batch", "token", "channel"]),
            }
        ],
    }
    assets: dict[str, Json] = {
        "weights": {
            "href": f"./{WEIGHTS_FILE}",
            "title": "Weights",
            "type": "application/octet-stream; application=safetensors",
            "roles": ["mlm:model", "mlm:weights", "data"],
            "mlm:artifact_type": "safetensors.torch.save_file",
            **bands,
        },
        "config": {
            "href": f"./{CONFIG_FILE}",
            "title": "Configuration: architecture, bands, normalisation",
            "type": "application/json",
            "roles": ["metadata"],
        },
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": f"{name}-{digest[:12]}",
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def _structure(shape: Sequence[int], dim_order: Sequence[str]) -> dict[str, Json]:
    """Describe an array of float32; -1 is any length."""
    return {"shape": list(shape), "dim_order": list(dim_order), "data_type": "float32"}


def _sensors_of(config: Mapping[str, Json]) -> dict[str, list[str]]:
    return cast("dict[str, list[str]]", config.get("bands") or {})


def _bands(config: Mapping[str, Json], sensors: Mapping[str, Sensor]) -> list[Json]:
    """List every band that was trained on, named SENSOR/BAND: two sensors may call different bands alike."""
    found: list[Json] = []
    for sensor_id, names in _sensors_of(config).items():
        known = {band.name: band for band in sensors[sensor_id].bands} if sensor_id in sensors else {}
        for name in names:
            band: dict[str, Json] = {"name": f"{sensor_id}/{name}"}
            if name in known:
                band |= {"gsd": known[name].gsd_m, "description": known[name].common_name or name}
            found.append(band)
    return found


def _image_inputs(encoder: Encoder, config: Mapping[str, Json]) -> list[Json]:
    """Describe the images of each sensor; where nothing is known of sensors, those of none."""
    free = encoder.config.bands == "wavelength"
    channels = -1 if free else encoder.config.in_chans
    structure = _structure([-1, channels, -1, -1], ["batch", "channel", "height", "width"])
    sides = f"Height and width are multiples of {encoder.patch_size}; pixels that were not seen are 0."
    statistics = cast("dict[str, dict[str, list[float]]]", config.get("normalization") or {})
    found: list[Json] = []
    for sensor_id, names in _sensors_of(config).items():
        count = "any number" if free else str(channels)
        found.append(
            {
                "name": sensor_id,
                "description": f"Images of {sensor_id}: {count} of these bands at a time. {sides}",
                "bands": [f"{sensor_id}/{name}" for name in names],
                "input": structure,
                "value_scaling": [
                    {"type": "z-score", "mean": mean, "stddev": std}
                    for mean, std in (statistics[sensor_id][name] for name in names)
                ],
                "resize_type": None,
            }
        )
    if found:
        return found
    return [{"name": "images", "description": f"Normalised images. {sides}", "bands": [], "input": structure}]


_INPUTS = {
    "gsd_m": ([-1], ["batch"], "Metres per pixel of each image as it is fed."),
    "lonlat_deg": ([-1, 2], ["batch", "coordinate"], "Longitude and latitude of each centre; may be left out."),
    "day": ([-1], ["batch"], "Days since 1970-01-01 UTC; may be left out."),
    "wavelength_nm": ([-1, -1], ["batch", "channel"], "Centre wavelength of each band in nanometres; 0 for radar."),
}


def _other_inputs(encoder: Encoder) -> list[Json]:
    names = [*ENCODINGS[encoder.config.encoding]]
    names += ["wavelength_nm"] if encoder.config.bands == "wavelength" else []
    return [
        {
            "name": name,
            "description": words,
            "bands": [],
            "input": _structure(shape, order),
        }
        for name, (shape, order, words) in ((name, _INPUTS[name]) for name in names)
    ]


def _licence(stated: str | None, text: str | None, card: Path | None) -> str:
    """Take the licence that is stated, or that the card has."""
    found = re.search(r"^license: *['\"]?([^\s'\"]+)", text or "", re.M)
    said = found[1] if found else None
    if stated is None and said is None:
        raise InputError(
            "no licence is stated: name it by --licence (an SPDX identifier in lower case, or other), or take the card"
            " that the report has written by --card"
        )
    if stated is not None and said is not None and stated != said:
        raise InputError(f"the licence is stated as {stated}, and {card} says {said}: state one")
    return str(stated or said)


def _short_card(encoder: Encoder, config: Mapping[str, Json], licence: str) -> str:
    model = str(config["model"])
    start = cast("dict[str, Any]", config.get("start") or {})
    started = (
        f"\nIt started from `{start['weights']}` ({start['kind']}), SHA-256 `{start['sha256']}`, licence"
        f" {start['licence'] or 'not stated'}.\n"
        if start
        else ""
    )
    sensors = "".join(f"| {sensor} | {', '.join(names)} |\n" for sensor, names in _sensors_of(config).items())
    table = f"\n| sensor | bands |\n|---|---|\n{sensors}" if sensors else ""
    return f"""---
license: {licence}
library_name: a2mae
pipeline_tag: image-feature-extraction
tags:
- earth-observation
- satellite
- self-supervised
---

# {model}

An encoder of satellite images: width {encoder.config.embed_dim}, depth {encoder.config.depth}, patches of \
{encoder.patch_size} pixels, encoding `{encoder.config.encoding}`.
{started}
`python {EXAMPLE_FILE}` runs it. `{CONFIG_FILE}` has the bands and their normalisation, `{ITEM_FILE}` says the same as a
STAC item.
{table}"""


def _example(encoder: Encoder, config: Mapping[str, Json], sensors: Mapping[str, Sensor]) -> str:
    """Write a script that encodes an image of the model's first sensor."""
    count, side = encoder.config.in_chans, 8 * encoder.patch_size
    sensor, names = next(iter(_sensors_of(config).items()), ("", []))
    free = encoder.config.bands == "wavelength"
    bands = names if free else [names[index % len(names)] for index in range(count)] if names else []
    known = sensors.get(sensor)
    gsd = known.gsd_m if known is not None else encoder.config.gsd_reference_m
    waves, told = "", ""
    if free and known is not None:
        nm = [float(known.bands[known.band_index(name)].center_wavelength_nm) for name in bands]
        waves = f", wavelength_nm=torch.tensor({nm})"
    elif free:
        told = "# Put the centre wavelengths of your bands, in nanometres, in place of these.\n"
        waves = ", wavelength_nm=torch.linspace(450.0, 2200.0, images.shape[1])"
    read = (
        f'norm = json.loads((folder / "{CONFIG_FILE}").read_text())["normalization"]["{sensor}"]\n'
        f"bands = {json.dumps(bands)}\n"
        "mean, std = (torch.tensor(values)[:, None, None] for values in zip(*(norm[band] for band in bands)))\n"
        f"physical = mean + std * torch.randn(len(bands), {side}, {side})  # in place of your image, in its units\n"
        "images = ((physical - mean) / std)[None]\n"
        if bands
        else f"images = torch.randn(1, {3 if free else count}, {side}, {side})  # in place of your image, normalised\n"
    )
    return f'''"""Encode an image. It needs the package a2mae, with what that needs: torch, timm, safetensors, NumPy."""

import json
from pathlib import Path

import torch

from a2mae import load_encoder

folder = Path(__file__).parent
encoder = load_encoder(folder)
{read}{told}with torch.no_grad():
    tokens = encoder.forward_features(images, gsd_m={gsd}{waves})
print(tuple(tokens.shape))  # (images, 1 + patches, width): the first token is the image's
'''
