"""Write what a finished run leaves: the model directory, its metrics, reconstructions to look at, and its W&B run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2mae.files import digest_of, file_digest, whole_file, whole_folder, write_json
from a2mae.models import Pretrainer, create_model, save_pretrained
from a2mae.models.checkpoint import Json
from a2mae.models.start import Plan
from a2mae.provenance.code import code_digest, environment
from a2mae.tracking import Piece, Run, open_run
from a2mae.training.data.loader import SampleReader
from a2mae.training.monitor import METRICS_FILE, HeldOut
from a2mae.training.spec import MODEL_DIR, SPEC_FILE, RunSpec

_LOG = logging.getLogger(__name__)

RECONSTRUCTIONS_FILE = "reconstructions.npz"
FINISHED_FILE = "finished.json"
Metrics = Mapping[str, float | int | str | None]


def trained_model(spec: RunSpec, state: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Pretrainer:
    """Build the model that is kept: not the one of the loop, which may be spread over processes.

    Args:
        spec: What was run.
        state: As `capture` gives it; the moving average is kept where there is one.
        device: Where it goes.

    Returns:
        In evaluation mode.
    """
    model = create_model(spec.model.name, **spec.model_options).to(device)
    model.load_state_dict({name.removeprefix("model."): value for name, value in state["model"].items()})
    if "average" in state:
        model.load_state_dict(dict(state["average"]), strict=False)  # it has no buffers
    return model.eval()


def write_results(
    run_dir: Path, spec: RunSpec, model: Pretrainer, metrics: Metrics, *, start: Plan | None = None
) -> Path:
    """Write the model directory, whole or not at all, then mark the run as finished.

    Args:
        run_dir: The run directory.
        spec: What was run.
        model: The trained model.
        metrics: Goes to `metrics.json`.
        start: What the model took of the weights that the run started from.

    Returns:
        The model directory.
    """
    target = run_dir / MODEL_DIR
    with whole_folder(target) as partial:
        save_pretrained(
            model,
            partial,
            config={
                "method": spec.method,
                "sensors": [sensor.id for sensor in spec.data.sensors],
                "bands": {sensor.id: list(sensor.bands) for sensor in spec.data.sensors},
                "normalization": {
                    sensor.id: {
                        band: [mean, std] for band, mean, std in zip(sensor.bands, sensor.mean, sensor.std, strict=True)
                    }
                    for sensor in spec.data.sensors
                },
                "image_size": spec.sampling.image_size,
                "data_manifest_hash": spec.data.store_hash,
                "run_identity": spec.identity,
                "code_commit": spec.code_commit,
                **_started_from(spec, start),
                **_taught_by(spec),
            },
        )
        write_json(partial / "metrics.json", dict(metrics))
        # What the seed decides goes with the model; checkpoints and timings stay behind.
        (partial / "run").mkdir()
        for name in (SPEC_FILE, METRICS_FILE, RECONSTRUCTIONS_FILE):
            if (run_dir / name).is_file():
                shutil.copyfile(run_dir / name, partial / "run" / name)
    files = {path.relative_to(target).as_posix(): file_digest(path) for path in target.rglob("*") if path.is_file()}
    content = {"identity": spec.identity, "made_of": _made_of(spec), "files": files}
    write_json(run_dir / FINISHED_FILE, content)
    return target


def _started_from(spec: RunSpec, start: Plan | None) -> dict[str, Json]:
    if spec.start is None or start is None:
        return {}
    return {"start": start.described(sha256=spec.start.sha256, licence=spec.start.licence)}


def _taught_by(spec: RunSpec) -> dict[str, Json]:
    if spec.teacher is None:
        return {}
    told = spec.teacher.model_dump(mode="json", exclude={"file"})
    return {"teacher": {**told, "file": Path(spec.teacher.file).name}}


def finished_identity(run_dir: Path) -> str | None:
    """Read the identity of the run that was finished here; None if none was, or its model is not whole."""
    return _finished(run_dir).get("identity")


def is_finished(run_dir: Path, spec: RunSpec) -> bool:
    """Tell whether the model of this very specification is there, whole, by this code on a machine like this one.

    Such a training would leave the same bytes: what was finished and not yet handed on is not trained again.
    """
    return _finished(run_dir).get("made_of") == _made_of(spec)


def _finished(run_dir: Path) -> dict[str, str]:
    """What `write_results` has noted, if every file of the model is as it was written."""
    try:
        content = json.loads((run_dir / FINISHED_FILE).read_text(encoding="utf-8"))
        files = content.pop("files", {"config.json": None})  # of an earlier version: without digests
        damaged = [
            name for name, digest in files.items() if digest not in (None, file_digest(run_dir / MODEL_DIR / name))
        ]
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    if damaged:
        _LOG.warning("%s is not what was written: it is made again", run_dir / MODEL_DIR / damaged[0])
    return {} if damaged else content


def _made_of(spec: RunSpec) -> str:
    """Digest of all that decides the bytes of the model directory."""
    return digest_of([spec.model_dump(mode="json"), code_digest("a2mae.training"), environment(with_torch=True)])


def open_tracking(spec: RunSpec, run_dir: Path) -> Run:
    """Open the W&B run that the specification asks for, or go on with it: same specification, same run id."""
    if spec.logging.wandb_project is None:
        return Run()
    return open_run(
        "pretrain",
        spec.model_dump(mode="json") | {"identity": spec.identity},
        folder=run_dir,
        project=spec.logging.wandb_project,
        id=f"pretrain-{spec.identity[:12]}",
        name=f"pretrain-{spec.method}",
        resume="allow",
    )


def finish_tracking(run: Run, run_dir: Path, spec: RunSpec, summary: Mapping[str, float | int | None]) -> None:
    """Add the summary, link the model to the store it was made from if the training is finished, and close the run."""
    run.summarize(summary)
    if finished_identity(run_dir) == spec.identity:
        weights = file_digest(run_dir / MODEL_DIR / "model.safetensors")
        used = [Piece("image_sets", "store", spec.data.store_hash)]
        used += [] if spec.start is None else [Piece("start", "model", spec.start.sha256)]
        run.link(used=used, made=[Piece("pretrained_model", "model", weights)])
    run.finish()


@torch.no_grad()
def write_reconstructions(
    run_dir: Path, spec: RunSpec, model: Pretrainer, reader: SampleReader, held_out: HeldOut
) -> tuple[NDArray[np.uint8], list[str]]:
    """Write `reconstructions.npz`: fixed sets, what was hidden of them, and what the model predicts there.

    Args:
        run_dir: The run directory.
        spec: The run.
        model: The trained model.
        reader: Names the sets.
        held_out: Holds the fixed sets; the first `logging.reconstructions` are shown.

    Returns:
        Panels `(n, 3 * H, K * W, 3)` (input, input with holes, predicted) and a caption for each.
    """
    batch = held_out.batch(slice(0, spec.logging.reconstructions))
    masks = torch.Generator(batch.pixels.device).manual_seed(spec.seed % 2**63)
    output = model(batch, generator=masks)
    hidden = output.hidden
    samples, images, channels, height, width = batch.pixels.shape
    side = model.pixels_per_token
    grid = (height // side, width // side)
    shown = [0, 1, 2] if channels >= 3 else [0] * 3
    pixels = batch.pixels[:, :, shown].cpu().numpy()
    predicted = output.prediction["pixels"][:, :, shown].float().cpu().numpy()
    valid = batch.valid.cpu().numpy()
    # Stretched alike: the 2nd to 98th percentile of each image's valid pixels becomes 0 to 1.
    for i, k in np.ndindex(samples, images):
        inside = pixels[i, k][:, valid[i, k]]
        low, high = np.percentile(inside, (2, 98)) if inside.size else (0.0, 1.0)
        for values in (pixels, predicted):
            values[i, k] = np.clip((values[i, k] - low) / max(float(high - low), 1e-6), 0, 1)
    hidden_grid = hidden.reshape(samples, images, *grid).cpu().numpy()
    ids = [reader.index.name(int(position)) for position in batch.index.tolist()]
    sensor_names = np.asarray([sensor.id for sensor in spec.data.sensors])
    with whole_file(run_dir / RECONSTRUCTIONS_FILE) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            pixels=pixels.astype(np.float32),
            prediction=predicted.astype(np.float32),
            hidden=hidden_grid,
            valid=valid,
            sensor=sensor_names[batch.sensor_id.cpu().numpy()],
            day=batch.day.cpu().numpy(),
            gsd_m=batch.gsd_m.cpu().numpy(),
            set_id=np.asarray(ids),
            patch_size=np.asarray(side),
        )
    holes = np.repeat(np.repeat(hidden_grid, side, axis=2), side, axis=3)[:, :, None]
    rows = [pixels, np.where(holes, 0.5, pixels), np.where(holes, predicted, pixels)]
    panels = np.concatenate([row.transpose(0, 3, 1, 4, 2).reshape(samples, height, -1, 3) for row in rows], axis=1)
    return (panels * 255).astype(np.uint8), ids
