"""Start a model from weights that are there: what fits is taken, what can be adapted is, all else is told.

`read_weights` says what a file is, `plan_start` what becomes of each of its parts, `Plan.apply` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor

from a2mae.errors import InputError
from a2mae.models.checkpoint import Json
from a2mae.models.encoder import ENCODINGS
from a2mae.models.pretrainer import Pretrainer
from a2mae.models.released import CheckpointError, describe_difference
from a2mae.models.sources import Row, Weights, described, table_of

DECODERS = ("fresh", "same")
_PREDICTIONS = ("features.", "contrast.", "teacher.")
"""Of a decoder: what is predicted besides pixels, by an option of the run."""
_STEM, _KERNEL = "encoder.patch_embed.", ".proj.weight"


@dataclass(frozen=True)
class Plan:
    """What a model starts with.

    Attributes:
        weights: Where it comes from.
        decoder: `fresh` or `same`.
        tensors: Under the model's names, in its shapes; the others stay as they are.
        rows: What becomes of each part.
    """

    weights: Weights
    decoder: str
    tensors: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    def apply(self, model: Pretrainer) -> None:
        """Fill a model of the shapes that were planned for."""
        model.load_state_dict(dict(self.tensors), strict=False)

    def described(self, *, sha256: str, licence: str | None) -> dict[str, Json]:
        """Say what a model was started from, for its `config.json`.

        Args:
            sha256: Of the file, by `weights_digest`.
            licence: As the user states it.
        """
        found = described(self.weights.path, self.weights.kind, self.rows, sha256=sha256, licence=licence)
        return {**found, "decoder": self.decoder}

    def table(self) -> str:
        """Write the rows as lines in columns."""
        return table_of(self.rows)


def plan_start(
    weights: Weights, model: Pretrainer, *, decoder: str = "fresh", wavelength_nm: Sequence[float] | None = None
) -> Plan:
    """Work out what a model takes of a file; nothing is changed.

    Args:
        weights: Of `read_weights`.
        model: Of `create_model`; only its names and shapes are read, so it may be on the meta device.
        decoder: `fresh`, or `same`: the file's, which must fit as it is.
        wavelength_nm: Of the bands that the model reads, in order; None where they are drawn or differ by sensor.

    Raises:
        CheckpointError: If the file does not fit; the message has both sides.
        InputError: If `decoder` is unknown.
    """
    if decoder not in DECODERS:
        raise InputError(f"unknown decoder {decoder!r}; choose one of {', '.join(DECODERS)}")
    _check_fit(weights, model)
    own = model.state_dict()
    rows = list(weights.rows)
    stem = _stem(weights, model, wavelength_nm, rows)
    body = {n: v for n, v in weights.tensors.items() if n.startswith("encoder.") and not n.startswith(_STEM)}
    rows.append(
        Row("class token and blocks", "taken", f"{weights.config.depth} blocks of width {weights.config.embed_dim}")
    )
    if not any(name.startswith("encoder.norm.") for name in body):
        rows.append(Row("last norm of the encoder", "fresh", "the file has none that applies to each token"))
    rows.append(_positions(weights, model))
    rest = _decoder(weights, model, decoder, rows)
    tensors = {**stem, **body, **rest}
    problems = describe_difference({name: tuple(own[name].shape) for name in tensors if name in own}, tensors)
    if problems:
        raise CheckpointError(f"{weights.path} ({weights.kind}) does not fit {model.name}: {problems}")
    return Plan(weights, decoder, tensors, tuple(rows))


def _check_fit(weights: Weights, model: Pretrainer) -> None:
    """Refuse another width, depth, number of heads or hidden width."""
    words = {
        "embed_dim": "width",
        "depth": "depth",
        "num_heads": "attention heads",
        "mlp_ratio": "hidden width over width",
    }
    wrong = [
        f"{word} {getattr(weights.config, name):g} in the file, {getattr(model.config, name):g} in the model"
        for name, word in words.items()
        if getattr(weights.config, name) != getattr(model.config, name)
    ]
    if wrong:
        raise CheckpointError(
            f"{weights.path} ({weights.kind}) does not fit {model.name}: {'; '.join(wrong)}. Set the model's size"
            " (pretrain.model.size, or model.options) to the file's"
        )


def _stem(
    weights: Weights, model: Pretrainer, wavelength_nm: Sequence[float] | None, rows: list[Row]
) -> dict[str, Tensor]:
    """Adapt what turns patches into tokens to the model's bands and patch."""
    source, target = weights.config, model.config
    names = [name for name in model.state_dict() if name.startswith(_STEM)]
    if not weights.has_stem:
        rows.append(Row("patch embedding", "fresh", "the file has no kernels of its own for bands"))
        return {}
    found = {name: value for name, value in weights.tensors.items() if name.startswith(_STEM)}
    grouped = target.bands == "groups"
    if source.bands == target.bands and [len(group) for group in source.groups] == [
        len(group) for group in target.groups
    ]:
        pairs: dict[str, tuple[str, tuple[int, ...] | None]] = {n: (n, None) for n in names if n in found}
    elif source.bands == "draw3" and grouped:
        pairs = {
            f"{_STEM}members.{index}.proj.{part}": (f"{_STEM}proj.{part}", group)
            for index, group in enumerate(target.groups)
            for part in ("weight", "bias")
        }
    else:
        raise CheckpointError(
            f"the bands of {weights.path} cannot be mapped: its patch embedding reads {weights.bands_in_words}; that of"
            f" {model.name} reads bands={target.bands!r} (in_chans={target.in_chans}, groups={target.groups}); choose"
            " the file's way by pretrain.model.options"
        )
    tensors: dict[str, Tensor] = {}
    words: list[str] = []
    for name, (theirs, group) in pairs.items():
        value = found[theirs]
        if name.endswith(_KERNEL):
            if source.bands == "draw3":
                members = tuple(range(target.in_chans)) if group is None else group
                nm = None if wavelength_nm is None else [wavelength_nm[band] for band in members]
                value, said = map_bands(value, len(members), weights.wavelength_nm, nm, str(weights.path))
                words.append(said)
            value = resample_patch_embed(value, [target.patch_size] * 2)
        tensors[name] = value
    own = model.state_dict()
    if any(tensors[name].shape != own[name].shape for name in tensors if ".rcf." in name):  # of other bands
        tensors = {name: value for name, value in tensors.items() if ".rcf" not in name}
    if source.patch_size != target.patch_size:
        words.append(f"patch {source.patch_size} resampled to {target.patch_size}")
    changed = [word for word in dict.fromkeys(words) if word]
    same = f"patch {target.patch_size}, bands: {weights.bands_in_words}"
    rows.append(Row("patch embedding", "adapted" if changed else "taken", "; ".join(changed) or same))
    if missing := [name for name in names if name not in tensors]:
        rows.append(Row("features beside the patch", "fresh", f"the file has none that fit: {', '.join(missing[:2])}"))
    if left := [name for name in found if name not in {theirs for theirs, _ in pairs.values()}]:
        rows.append(Row("features beside the patch", "left out", f"the model has none: {', '.join(left[:2])}"))
    return tensors


def map_bands(
    kernel: Tensor,
    bands: int,
    source_nm: Sequence[float] | None,
    target_nm: Sequence[float] | None,
    source: str = "the file",
) -> tuple[Tensor, str]:
    """Give a patch kernel other input bands, so that what looks the same in all bands is embedded as before.

    Args:
        kernel: `(D, C, p, p)`.
        bands: How many the model reads.
        source_nm: Wavelength of each of the C channels; None: not known.
        target_nm: Wavelength of each band of the model; None: drawn, or not known.
        source: For messages.

    Returns:
        `(D, bands, p, p)`. With wavelengths on both sides each band has the kernel of the nearest channel, shared by
        all bands that take it. Else the same number of bands is taken as it is, and another gets the mean over the
        channels. And what was done in words, empty if nothing.

    Raises:
        CheckpointError: If a band has no wavelength (radar) and the channels have.
    """
    channels = kernel.shape[1]
    if source_nm is not None and target_nm is not None:
        if radar := [band for band, nm in enumerate(target_nm) if nm <= 0]:
            raise CheckpointError(
                f"the bands of {source} cannot be mapped: its channels see {', '.join(f'{nm:g}' for nm in source_nm)}"
                f" nm, band {radar[0] + 1} of the model has no wavelength (radar): choose other bands"
                " (pretrain.sampling.bands; of a task, bands), or other weights"
            )
        nearest = [min(range(channels), key=lambda channel: abs(source_nm[channel] - nm)) for nm in target_nm]
        if nearest == list(range(channels)):
            return kernel, ""
        parts = [kernel[:, channel] / nearest.count(channel) for channel in nearest]
        told = ", ".join(f"{nm:g}←{source_nm[channel]:g}" for nm, channel in zip(target_nm, nearest, strict=True))
        return torch.stack(parts, dim=1), f"bands by nearest wavelength (nm): {told}"
    if bands == channels:
        return kernel, ""
    mean = kernel.sum(1, keepdim=True) / bands
    return mean.expand(-1, bands, -1, -1).clone(), f"mean of {channels} channels for each of {bands} bands"


def _positions(weights: Weights, model: Pretrainer) -> Row:
    """Tell what stands in for the file's positions: our encodings are computed, never looked up."""
    encoding = model.config.encoding
    source = weights.config.encoding
    known = weights.positions in ("ours", "sincos")
    references = (weights.config.gsd_reference_m, model.config.gsd_reference_m)
    if (
        weights.positions == "ours"
        and source == encoding
        and "gsd_m" in ENCODINGS[encoding]
        and len(set(references)) > 1
    ):
        return Row(
            "positions", "adapted", f"encoding {encoding!r}, reference GSD {references[1]:g} m, not {references[0]:g}"
        )
    if known and source == encoding:
        return Row("positions", "taken", f"encoding {encoding!r}, computed as in the file")
    if weights.positions == "sincos" and {source, encoding} == {"sincos", "gsd"}:
        return Row("positions", "taken", f"encoding {encoding!r}: at the reference GSD that of the file")
    table = {"learned": "learned table", "none": "positions, of which it has no table"}
    theirs = table.get(weights.positions, f"encoding {source!r}")
    return Row("positions", "left out", f"the model's encoding {encoding!r} instead of the file's {theirs}")


def _decoder(weights: Weights, model: Pretrainer, decoder: str, rows: list[Row]) -> dict[str, Tensor]:
    """Take the decoder as it is, or leave it."""
    own = {name: v for name, v in model.state_dict().items() if not name.startswith(("encoder.", "released."))}
    found = {name: value for name, value in weights.tensors.items() if not name.startswith("encoder.")}
    if decoder == "fresh":
        detail = "as pretrain.start.decoder says" if found else "the file has none that can be taken"
        rows.append(Row("decoder", "fresh", detail))
        return {}
    if not weights.has_decoder:
        raise CheckpointError(
            f"{weights.path} ({weights.kind}) has no decoder that can be taken, and decoder 'same' asks for it:"
            " say 'fresh'"
        )
    features = [name for name in own if name.startswith(_PREDICTIONS) and name not in found]
    expected = {name: tuple(value.shape) for name, value in own.items() if name not in features}
    given = {name: value for name, value in found.items() if name in own or not name.startswith(_PREDICTIONS)}
    problems = describe_difference(expected, given)
    if weights.config.decoder_num_heads != model.config.decoder_num_heads:
        heads = f"{weights.config.decoder_num_heads} heads in the file, {model.config.decoder_num_heads} in the model"
        problems = f"{heads}; {problems}" if problems else heads
    if problems:
        raise CheckpointError(
            f"the decoder of {weights.path} ({weights.kind}) does not fit {model.name}: {problems}. Set the model's"
            " sizes to the file's, or decoder to 'fresh'"
        )
    rows.append(Row("decoder", "taken", f"{model.config.decoder_depth} blocks of width {model.config.decoder_dim}"))
    if features:
        rows.append(Row("prediction of features", "fresh", "the file has none"))
    if left := len(found) - len(given):
        rows.append(Row("prediction of features", "left out", f"{left} tensors: the model has none"))
    return given
