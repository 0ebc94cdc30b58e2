"""What a finished node shows in its stage's W&B run: artifacts, numbers, the score table, a contact sheet, maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2mae.files import file_digest
from a2mae.provenance.record import Artifact, Record
from a2mae.report.previews import contact_sheet, raster_picture
from a2mae.tracking import Piece, Run, link

if TYPE_CHECKING:
    from a2mae.report.pictures import BytesImage

TABLES = ("scores",)
"""Tables shown whole: they hold no path of this machine, and are short."""
NUMBERS = ("four_properties", "prune_report", "scores_summary")
"""JSON whose numbers are the stage's result."""


def log(run: Run, record: Record, data_root: Path, saved: Mapping[str, Any]) -> None:
    """Show a node's result.

    Args:
        run: The stage's run.
        record: What the node left.
        data_root: Where its outputs lie.
        saved: The outputs as values, by dataset.
    """
    import wandb  # noqa: PLC0415 (optional, and slow to import)

    used = [_piece(name, entry, data_root) for name, entry in record.inputs.items()]
    made = [_piece(name, entry, data_root) for name, entry in record.outputs.items()]
    link(run, used=[piece for piece in used if piece], made=[piece for piece in made if piece])
    for name in TABLES:
        if name in saved:
            run.log({name: wandb.Table(dataframe=saved[name].astype(str))})
    for name in NUMBERS:
        if name in saved:
            run.summary.update({f"{name}/{key}": value for key, value in _numbers(saved[name])})
    for name, entry in record.outputs.items():
        picture = _picture(name, data_root / entry.path)
        if picture is not None:
            run.log({name: wandb.Image(picture)})


def _piece(name: str, entry: Artifact, data_root: Path) -> Piece | None:
    """An output as an artifact, by the digest under which the training's own run knows it."""
    path = data_root / entry.path
    if name == "image_sets":
        from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415 (zarr: only for the stages that have a store)

        url = entry.path if "://" in entry.path else str(path)
        return Piece(name, "store", ImageSetStore.open(url).manifest_hash)
    if (path / "model.safetensors").is_file():
        return Piece(name, "model", file_digest(path / "model.safetensors"))
    return None if entry.sha256 is None else Piece(name, "scores" if name == "scores" else "data", entry.sha256)


def _numbers(value: object, at: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield at, float(value)


def _picture(name: str, path: Path) -> BytesImage | None:
    if name == "image_sets" and path.is_dir():
        from a2mae.stssd.store.store import ImageSetStore  # noqa: PLC0415

        return contact_sheet(ImageSetStore.open(str(path)))
    return raster_picture(path) if path.suffix == ".tif" else None
