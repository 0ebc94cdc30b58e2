"""Read and write model directories, `config.json` and `model.safetensors`, without executing what is read."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from a2mae.errors import InputError
from a2mae.files import check_regular, telling_where, whole_file, write_json
from a2mae.models.encoder import Encoder, EncoderConfig
from a2mae.models.pretrainer import Pretrainer
from a2mae.models.registry import create_model, resolve
from a2mae.models.released import CheckpointError, describe_difference

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
_Module = TypeVar("_Module", bound=nn.Module)


def save_pretrained(
    model: Pretrainer, directory: str | os.PathLike[str], *, config: Mapping[str, Json] | None = None
) -> Path:
    """Write a model directory: each file whole or not at all, the same bytes for the same weights.

    Args:
        model: Made by `create_model`.
        directory: Made if absent.
        config: What else belongs to the model: `sensors`, `bands`, `normalization`
            (`{sensor: {band: [mean, std]}}`), `data_manifest_hash`, `code_commit`, ...

    Returns:
        The directory.
    """
    reserved = {"format_version", "model", "kwargs"}
    extra = dict(config or {})
    if reserved & extra.keys():
        raise InputError(f"config must not hold {sorted(reserved & extra.keys())}: they are written from the model")
    if not model.name:
        raise InputError("only models made by create_model can be saved: this one has no name")
    document = {
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "kwargs": dataclasses.asdict(model.config),
        "gsd_reference_m": model.config.gsd_reference_m,
        **extra,
    }
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    save_weights(model, root / WEIGHTS_FILE)
    write_json(root / CONFIG_FILE, document)
    return root


def from_pretrained(directory: str | os.PathLike[str]) -> Pretrainer:
    """Read a pretraining model, encoder and decoder, in evaluation mode.

    Raises:
        CheckpointError: If a file is missing, of another format version, damaged, or has other tensors.
    """
    root = Path(directory)
    return load_built(lambda: model_of_config(root), root).eval()


def model_of_config(directory: Path) -> Pretrainer:
    """Build the model that `config.json` describes, with fresh weights, on the default device.

    Raises:
        CheckpointError: As `from_pretrained`.
    """
    config = read_config(directory)
    return _described(directory, lambda: create_model(str(config["model"]), **_kwargs(config)))


def load_encoder(directory: str | os.PathLike[str], *, drop_path: float = 0.0) -> Encoder:
    """Read the encoder of a model directory, in evaluation mode.

    Args:
        directory: Written by `save_pretrained`.
        drop_path: Stochastic depth for finetuning.

    Raises:
        CheckpointError: As `from_pretrained`.
    """
    root = Path(directory)
    return load_built(lambda: encoder_of_config(root, drop_path=drop_path), root, prefix="encoder.").eval()


def encoder_of_config(directory: Path, *, drop_path: float = 0.0) -> Encoder:
    """Build the encoder that `config.json` describes, with fresh weights.

    Args:
        directory: Written by `save_pretrained`.
        drop_path: Stochastic depth for finetuning.

    Raises:
        CheckpointError: As `from_pretrained`.
    """
    config = read_config(directory)
    if str(config["model"]).startswith("timm/"):
        raise CheckpointError(
            f"{directory} has an encoder of timm's, {config['model']}: a finetuned model is read by load_task_model"
            " (a2mae.tasks.finetune.finetuned)"
        )

    def build() -> Encoder:
        _, full = resolve(str(config["model"]), _kwargs(config))
        fields = {field.name: getattr(full, field.name) for field in dataclasses.fields(EncoderConfig)}
        return Encoder(EncoderConfig(**{**fields, "drop_path": drop_path}))

    return _described(directory, build)


def _described(directory: Path, build: Callable[[], _Module]) -> _Module:
    """Build what a configuration describes; it may come from anybody and describe what cannot be built."""
    try:
        return build()
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # the last: sizes that torch refuses
        raise CheckpointError(f"{directory / CONFIG_FILE} describes no model of this version: {error}") from error


def read_config(directory: str | os.PathLike[str]) -> dict[str, Json]:
    """Read `config.json` and check its format.

    Raises:
        CheckpointError: If it is missing, no JSON object, of another format version, or holds other statistics than
            `{sensor: {band: [mean, std]}}`.
    """
    path = Path(directory) / CONFIG_FILE
    document = read_json(path)
    if not isinstance(document, dict) or not {"format_version", "model", "kwargs"} <= document.keys():
        raise CheckpointError(f"{path} must be an object with format_version, model and kwargs")
    if document["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {document['format_version']!r}; this code reads {FORMAT_VERSION}:"
            " pretrain again or use the version of a2mae that wrote it"
        )
    _check_statistics(path, document.get("normalization"))
    return document


def read_json(path: Path) -> Json:
    """Read a JSON file of a model directory, which may be anybody's.

    Raises:
        CheckpointError: If it is missing, no JSON, nested too deep, or holds numbers that are not finite.
    """
    try:
        check_regular(path)
        found: Json = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{path} is missing: {path.parent} is no model directory") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is not JSON that is read: its lists are nested too deep") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _check_statistics(path: Path, found: Json) -> None:
    """Refuse statistics by which no image could be normalised."""
    if found is None:
        return
    for sensor, bands in found.items() if isinstance(found, dict) else [("", found)]:
        for band, pair in bands.items() if isinstance(bands, dict) else [("", None)]:
            numbers = [one for one in pair if _is_number(one)] if isinstance(pair, list) else []
            if not (isinstance(pair, list) and len(numbers) == len(pair) == 2 and float(str(numbers[1])) >= 0):
                where = " ".join(word for word in (sensor, band) if word) or "'normalization'"
                raise CheckpointError(
                    f"{path}: {where} has {str(pair or bands)[:80]!r}, expected {{sensor: {{band: [mean, std]}}}}"
                )


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's tensors as safetensors, atomically; tensors that share memory are written under each name."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    with telling_where(path, SafetensorError), whole_file(path) as part:
        save_file(tensors, part)


def load_built(build: Callable[[], _Module], directory: Path, *, prefix: str = "") -> _Module:
    """Build a module and fill it from a model directory's weights, which must be its tensors and no others.

    It is built twice, first without memory: a configuration must not take more of it than its weights do.

    Args:
        build: Makes the module, on the default device.
        directory: With the weights; a file that is no safetensors is rejected without being executed.
        prefix: Read only the tensors under it.

    Raises:
        CheckpointError: If the file is missing, no safetensors, or its names or shapes differ.
    """
    path = directory / WEIGHTS_FILE
    with torch.device("meta"):
        described = build()
    tensors = read_safetensors(path)
    if prefix:
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    check_tensors(described, tensors, str(path))
    module = build()
    module.load_state_dict(dict(tensors), strict=True)
    return module


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        CheckpointError: If it is missing or something else, above all a pickle.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    # A zip archive (torch.save) or a bare pickle; safetensors starts with a length and a brace.
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[8:9] != b"{"):
        raise CheckpointError(
            f"{path} is a pickle (torch.save), which can run code when loaded, and was not opened: convert it to"
            " safetensors where you trust it: safetensors.torch.save_file(torch.load(file, weights_only=True), ...)"
        )
    try:
        with safe_open(path, framework="pt"):
            pass
        return dict(load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors are those of a module, which may lie on the device `meta`.

    Raises:
        CheckpointError: Listing what is missing, extra, of another shape or kind, or not finite.
    """
    expected = module.state_dict()
    problems = describe_difference({name: tuple(value.shape) for name, value in expected.items()}, tensors)
    if problems:
        raise CheckpointError(f"{source} does not fit this model: {problems}")
    fractions = [name for name, value in expected.items() if value.is_floating_point()]
    if other := [name for name in fractions if not tensors[name].is_floating_point()]:
        kind = str(tensors[other[0]].dtype).removeprefix("torch.")
        raise CheckpointError(f"{source} does not fit this model: {other[0]} holds {kind}, expected fractions")
    # As they are in the model: 1e300 is not finite there.
    kept = {name: tensors[name].to(expected[name].dtype) for name in fractions}
    if broken := [name for name, value in kept.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(
            f"{source} has values that are not finite, in {', '.join(broken[:5])}{' ...' if broken[5:] else ''}:"
            " take a whole file, or train again"
        )


def _kwargs(config: Mapping[str, Json]) -> dict[str, object]:
    kwargs = config["kwargs"]
    if not isinstance(kwargs, dict):
        raise CheckpointError(f"kwargs in {CONFIG_FILE} must be an object, found {type(kwargs).__name__}")
    return dict(kwargs)


__all__ = [
    "CheckpointError",
    "check_tensors",
    "encoder_of_config",
    "from_pretrained",
    "load_built",
    "load_encoder",
    "model_of_config",
    "read_config",
    "read_json",
    "read_safetensors",
    "save_pretrained",
    "save_weights",
]
