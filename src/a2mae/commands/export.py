"""`a2mae export DIR OUT --to hub|onnx|torch-export|timm`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from a2mae.commands.project import local_path, one_line
from a2mae.errors import InputError
from a2mae.files import whole_file, whole_folder, write_json


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export` to the commands of `a2mae`."""
    about = "write a model directory in the form that others load"
    parser = commands.add_parser(
        "export",
        help=about,
        description=about,
        epilog="for example:\n  a2mae export data/mine/06_models/pretrain encoder.onnx --to onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=local_path, help="a model directory")
    parser.add_argument("out", type=local_path, help="file (onnx, torch-export) or folder (hub, timm) to write")
    parser.add_argument(
        "--to",
        choices=tuple(_WRITERS),
        required=True,
        help="hub: folder with card, licence, example and STAC item; onnx; torch-export; timm: folder that timm loads",
    )
    parser.add_argument(
        "--licence",
        type=one_line,
        help="hub: SPDX identifier in lower case, or other; as the card says if not given",
    )
    parser.add_argument("--licence-file", type=local_path, help="hub: its text, copied as LICENSE")
    parser.add_argument(
        "--card", type=local_path, help="hub: model_card.md of the report; if not given, a short one is made"
    )
    parser.add_argument("--image-px", type=int, help="timm: side of the images; as trained if not given")
    parser.add_argument("--gsd-m", type=float, help="timm: metres per pixel of the images; the reference if not given")
    parser.set_defaults(run=_export)


_OF: Mapping[str, tuple[str, ...]] = {"hub": ("licence", "licence_file", "card"), "timm": ("image_px", "gsd_m")}


def _export(options: argparse.Namespace) -> None:
    if options.out.exists():
        raise InputError(f"{options.out} is there already: name what is not, or remove it")
    if options.out.resolve().is_relative_to(options.directory.resolve()):
        raise InputError(f"{options.out} lies in {options.directory}, which is read: name a place beside it")
    for form, names in _OF.items():
        for name in names:
            if options.to != form and getattr(options, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is of --to {form}, and --to is {options.to}")
    for path in (options.card, options.licence_file):
        if path is not None and not path.is_file():
            raise InputError(f"{path} is missing, or no file")
    sys.stdout.write(f"{options.out}: {_WRITERS[options.to](options)}\n")


def _hub(options: argparse.Namespace) -> str:
    from a2mae.models.hub import write_hub_folder  # noqa: PLC0415 (torch takes seconds)

    sensors = {}
    if find_spec("yaml") is not None:  # the bare install does not know the built-in sensors
        from a2mae.sensors import BUILTIN_SENSORS  # noqa: PLC0415

        sensors = dict(BUILTIN_SENSORS)
    with whole_folder(options.out) as partial:
        write_hub_folder(
            options.directory,
            partial,
            licence=options.licence,
            card=options.card,
            licence_file=options.licence_file,
            sensors=sensors,
        )
    return "safetensors, config.json, README.md, example.py, stac-item.json"


def _onnx(options: argparse.Namespace) -> str:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX is written by {' and '.join(missing)}, which is not installed: pip install onnx onnxscript"
        )
    from a2mae.models.checkpoint import load_encoder  # noqa: PLC0415
    from a2mae.models.export import ExportableEncoder, export_onnx  # noqa: PLC0415

    encoder = load_encoder(options.directory)
    with whole_file(options.out) as partial:
        export_onnx(encoder, partial)
    return (
        f"inputs {', '.join(ExportableEncoder(encoder).input_names)}; output features; batch, height and width are free"
    )


def _torch_export(options: argparse.Namespace) -> str:
    import torch  # noqa: PLC0415

    from a2mae.models.checkpoint import load_encoder  # noqa: PLC0415
    from a2mae.models.export import ExportableEncoder, export_program  # noqa: PLC0415

    encoder = load_encoder(options.directory)
    program = export_program(encoder)
    with whole_file(options.out) as partial, partial.open("wb") as stream:
        torch.export.save(program, stream)
    names = ", ".join(ExportableEncoder(encoder).input_names)
    return f"torch.export.load(FILE).module()({names}); batch, height and width are free"


def _timm(options: argparse.Namespace) -> str:
    from safetensors.torch import save_file  # noqa: PLC0415

    from a2mae.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_encoder, read_config  # noqa: PLC0415
    from a2mae.models.export import timm_state  # noqa: PLC0415

    encoder = load_encoder(options.directory)
    trained = read_config(options.directory).get("image_size")
    pixels = int(str(trained or 14 * encoder.patch_size)) if options.image_px is None else options.image_px
    document, tensors = timm_state(encoder, image_px=pixels, gsd_m=options.gsd_m)
    with whole_folder(options.out) as partial:
        partial.mkdir()
        save_file(tensors, partial / WEIGHTS_FILE)
        write_json(partial / CONFIG_FILE, document)
    gsd = encoder.config.gsd_reference_m if options.gsd_m is None else options.gsd_m
    return (
        f'timm.create_model("local-dir:{options.out}", pretrained=True); features are equal for normalised images of'
        f" {pixels} px at {gsd:g} m, with place and date unknown"
    )


_WRITERS: Mapping[str, Callable[[argparse.Namespace], str]] = {
    "hub": _hub,
    "onnx": _onnx,
    "torch-export": _torch_export,
    "timm": _timm,
}
