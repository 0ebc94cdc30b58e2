"""`a2mae weights show FILE` and `a2mae weights import FILE DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from a2mae.commands.project import local_path, one_line
from a2mae.errors import InputError
from a2mae.files import whole_folder

if TYPE_CHECKING:
    from a2mae.models.pretrainer import Pretrainer
    from a2mae.models.start import Plan

_METHODS = ("a2mae", "scale_mae", "mae", "satmae")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `weights` to the commands of `a2mae`."""
    about = "published weights: say what a file is, make a model directory of it"
    raw = argparse.RawDescriptionHelpFormatter
    show_it, import_it = "a2mae weights show encoder.pth", "a2mae weights import encoder.pth models/start --licence mit"
    parser = commands.add_parser(
        "weights",
        help=about,
        description=about,
        epilog=f"for example:\n  {show_it}\n  {import_it}",
        formatter_class=raw,
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    what = "say what a file is, and what would be loaded"
    show = kinds.add_parser(
        "show", help=what, description=what, epilog=f"for example:\n  {show_it}", formatter_class=raw
    )
    show.add_argument("file", type=local_path, help="safetensors, a file of torch.save, or a model directory")
    show.set_defaults(run=_show)
    what = "write a model directory of a file of published weights"
    bring = kinds.add_parser(
        "import", help=what, description=what, epilog=f"for example:\n  {import_it}", formatter_class=raw
    )
    bring.add_argument("file", type=local_path, help="as published")
    bring.add_argument("directory", type=local_path, help="to write; it must not be there")
    bring.add_argument(
        "--licence", type=one_line, help="of the file: an SPDX id or words; it is written into config.json"
    )
    for parser in (show, bring):
        parser.add_argument(
            "--method", choices=_METHODS, help="of an encoder alone, which does not tell; else mae is taken"
        )
    bring.set_defaults(run=_import)


def _show(options: argparse.Namespace) -> None:
    if pyramid := _pyramid(options.file):
        sys.stdout.write("\n".join(f"{key:8} {value}" for key, value in pyramid.items()) + "\n")
        return
    _, plan, sha256 = _loaded(options, device="meta")
    weights, config = plan.weights, plan.weights.config
    lines = {
        "file": weights.path,
        "sha256": sha256,
        "is": weights.kind,
        "model": weights.name,
        "encoder": f"width {config.embed_dim}, depth {config.depth}, {config.num_heads} heads",
        "patch": f"{config.patch_size} pixels",
        "bands": weights.bands_in_words,
        "decoder": f"width {config.decoder_dim}, depth {config.decoder_depth}" if weights.has_decoder else "none",
    }
    sys.stdout.write("\n".join(f"{key:8} {value}" for key, value in lines.items()))
    sys.stdout.write(f"\n\nwhat would be loaded into such a model:\n{plan.table()}\n")


def _pyramid(file: Path) -> dict[str, object] | None:
    """Say what a file is that a task can start from, and a training cannot; None for any other."""
    from a2mae.models.sources import family_of, read_tensors, weights_digest  # noqa: PLC0415 (as below)
    from a2mae.models.timm_encoder import name_pyramid  # noqa: PLC0415

    tensors = {} if file.is_dir() else read_tensors(file)
    family = family_of(tensors)
    if family is None:
        return None
    kernel = next((value for value in tensors.values() if value.ndim == 4), None)
    if kernel is None:
        raise InputError(
            f"{file} has names of a {family}, and no kernel (C, C, k, k) as such a network has: take it afresh"
        )
    model = name_pyramid(family, tensors)
    use = "no training; a task by start.model and start.weights"
    return {
        "file": file,
        "sha256": weights_digest(file),
        "is": family,
        "model": f"timm's {model}" if model else "none of timm's by that family's name",
        "bands": kernel.shape[1],
        "starts": use if model else "nothing here, unless it is a network of timm's by another name (start.model)",
    }


def _import(options: argparse.Namespace) -> None:
    target: Path = options.directory
    if options.file.is_dir():
        raise InputError(f"{options.file} is a directory: a file of published weights is imported")
    if target.exists():
        raise InputError(f"{target} is there already: name a directory that is not, or remove it")
    model, plan, sha256 = _loaded(options, device="cpu")
    plan.apply(model)

    from a2mae.models.checkpoint import save_pretrained  # noqa: PLC0415 (as below)

    start = plan.described(sha256=sha256, licence=options.licence)
    with whole_folder(target) as partial:
        save_pretrained(model, partial, config={"method": model.name.partition("_vit_")[0], "start": start})
    sys.stdout.write(f"{plan.table()}\n\n{target}: {model.name}, from {plan.weights.kind}\n")


def _loaded(options: argparse.Namespace, *, device: str) -> tuple[Pretrainer, Plan, str]:
    """Read the file, build the model that it is of, and plan what that takes; with the file's SHA-256."""
    # Torch takes seconds to import: a wrong argument is reported before.
    import torch  # noqa: PLC0415

    from a2mae.models.registry import create_model  # noqa: PLC0415
    from a2mae.models.sources import read_weights, weights_digest  # noqa: PLC0415
    from a2mae.models.start import plan_start  # noqa: PLC0415

    weights = read_weights(options.file, method=options.method)
    torch.manual_seed(0)  # what the file lacks is random, and the same in every import
    with torch.device(device):
        model = create_model(weights.name, **dataclasses.asdict(weights.config))
    plan = plan_start(weights, model, decoder="same" if weights.has_decoder else "fresh")
    return model, plan, weights_digest(options.file)
