"""The weights that a run starts from: pinned by their content, read again when it starts or goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from a2mae.models import create_model
from a2mae.models.pretrainer import Pretrainer
from a2mae.models.sources import read_weights, weights_digest
from a2mae.models.start import Plan, plan_start
from a2mae.training.data.loader import SampleReader
from a2mae.training.data.prepare import prepare
from a2mae.training.parameters import StartParameters
from a2mae.training.spec import RunSpec, StartSpec, check_unchanged, relative_url, resolve_url

_FITTED_IMAGES = 200


def pin_start(parameters: StartParameters, run_dir: Path) -> StartSpec:
    """Specify the weights that the parameters name by their content."""
    path = Path(parameters.weights)
    return StartSpec(
        weights=relative_url(run_dir, str(path)),
        sha256=weights_digest(path),
        decoder=parameters.decoder,
        licence=parameters.licence,
    )


def started_model(run_dir: Path, spec: RunSpec, reader: SampleReader) -> tuple[Pretrainer, Plan | None]:
    """Build a run's model with the weights that it starts from, the same in every process.

    Args:
        run_dir: The run directory.
        spec: The run.
        reader: Of its samples: filters of random convolution features are drawn from the first of them.

    Returns:
        The model on the CPU, and what it took of other weights; None for a run from random weights.
    """
    torch.manual_seed(spec.seed)
    model = create_model(spec.model.name, **spec.model_options)
    if model.random_features:
        raw = reader.read(reader.keys(0, -(-_FITTED_IMAGES // spec.sampling.images)))
        model.fit_features(prepare(raw, reader.tables(), spec.sampled_size), spec.seed)
    plan = plan_of(run_dir, spec, model, [waves.tolist() for waves in reader.tables().wavelength_nm])
    if plan is not None:
        plan.apply(model)
    return model, plan


def plan_of(run_dir: Path, spec: RunSpec, model: Pretrainer, wavelength_nm: Sequence[Sequence[float]]) -> Plan | None:
    """Read the weights that a run starts from, and work out what its model takes of them.

    Args:
        run_dir: The run directory.
        spec: The run.
        model: Its model; its names and shapes are read.
        wavelength_nm: Of the bands of each of its sensors.

    Returns:
        None for a run from random weights.

    Raises:
        SpecificationError: If they are not those of the specification.
        CheckpointError: If they are not there, cannot be read, or do not fit.
    """
    if spec.start is None:
        return None
    path = Path(resolve_url(run_dir, spec.start.weights))
    check_unchanged(path, weights_digest(path), spec.start.sha256, "start")
    lists = {tuple(bands) for bands in wavelength_nm}
    # Drawn bands have no place of their own, nor have those of sensors that differ.
    known = next(iter(lists)) if spec.sampling.bands == "all" and len(lists) == 1 else None
    if known is not None and len(known) != model.config.in_chans:
        known = None
    return plan_start(read_weights(path), model, decoder=spec.start.decoder, wavelength_nm=known)
