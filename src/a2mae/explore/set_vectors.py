"""Embed image sets of an archive as a whole: the images of a set in one sequence through the encoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.nn import functional as F

from a2mae.models.encoder import Encoder
from a2mae.models.precision import ComputePrecision
from a2mae.stssd.store.store import ImageSetStore
from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.inputs import InputPlan, TaskBatch
from a2mae.tasks.evaluation.features import EncoderFeatures
from a2mae.tasks.parameters import EmbedParameters

Floats = npt.NDArray[np.float32]


def members_of_sets(images: pd.DataFrame, inputs: InputParameters) -> pd.DataFrame:
    """Choose the images that each set is embedded by.

    Args:
        images: Rows of the store's images, with `set_id`, `sensor`, `datetime`, `lat` and `valid_fraction`.
        inputs: Which images make up a set.

    Returns:
        The rows with `member_of`: the set's id, with the period where there may be several (a season, per year); in
        turns of sensors, those that show most first.
    """
    kept = images[images["sensor"].isin(inputs.sensors)] if inputs.sensors else images
    periods = [inputs.period(day, lat) for day, lat in zip(kept["datetime"].dt.date, kept["lat"], strict=True)]
    kept = kept.assign(period=pd.array(periods, dtype=object)).dropna(subset=["period"])
    named = kept["set_id"] + ("" if inputs.one_period else " " + kept["period"])
    kept = kept.assign(member_of=named, hidden=1 - kept["valid_fraction"].round(2))
    kept = kept.sort_values(["member_of", "sensor", "hidden", "datetime", "id"], kind="stable")
    kept = kept.assign(turn=kept.groupby(["member_of", "sensor"]).cumcount())
    kept = kept.sort_values(["member_of", "turn", "sensor"], kind="stable")
    return kept[kept.groupby("member_of").cumcount() < inputs.images]


class SetEmbedder:
    """Turns image sets into vectors."""

    def __init__(
        self,
        encoder: Encoder,
        plans: Mapping[str, InputPlan],
        options: EmbedParameters,
        archive: ImageSetStore,
        precision: ComputePrecision,
    ) -> None:
        """Prepare.

        Args:
            encoder: On the device that is to do the work.
            plans: How images of each sensor enter it.
            options: The `embed` group.
            archive: The image-set store.
            precision: What the encoder computes in.
        """
        self._plans, self._archive, self._images = plans, archive, options.inputs.images
        any_plan = next(iter(plans.values()))
        self._device = next(encoder.parameters()).device
        self._features = EncoderFeatures(
            encoder,
            pool=options.pool,
            bands_per_view=any_plan.bands_per_view,
            precision=precision,
        )
        self._batch, patch = max(options.batch_size // self._images, 1), encoder.patch_size
        finest = max(max(archive.shape(sensor)[-2:]) for sensor in plans)
        self._side = max(min(finest, options.tile_px) // patch, 1) * patch

    def vectors(self, members: pd.DataFrame) -> Floats:
        """Embed the sets of rows of `members_of_sets`, `(N, D)` in the order of their `member_of`."""
        sets = [rows for _, rows in members.groupby("member_of", sort=False)]
        parts = [self._part(sets[start : start + self._batch]) for start in range(0, len(sets), self._batch)]
        return np.concatenate(parts)

    def _part(self, sets: list[pd.DataFrame]) -> Floats:
        plan = next(iter(self._plans.values()))
        shape = (len(sets), self._images)
        images = torch.zeros(*shape, plan.views * plan.bands_per_view, self._side, self._side)
        valid = torch.zeros(*shape, self._side, self._side, dtype=torch.bool)
        wavelength = torch.tensor(plan.wavelength_nm).expand(*shape, -1)
        first = [rows.iloc[0] for rows in sets]
        days = [[moment.timestamp() / 86400 for moment in rows["datetime"]] for rows in sets]
        gsd_m = [one["gsd_m"] * self._archive.shape(one["sensor"])[-1] / self._side for one in first]
        for number, rows in enumerate(sets):
            for position, (_, row) in enumerate(rows.iterrows()):
                images[number, position], valid[number, position] = self._image(row)
        batch = TaskBatch(
            images=images,
            gsd_m=torch.tensor(gsd_m, dtype=torch.float32),
            lonlat_deg=torch.tensor([[one["lon"], one["lat"]] for one in first]) if plan.location else None,
            day=torch.tensor([own + own[:1] * (self._images - len(own)) for own in days], dtype=torch.float32),
            wavelength_nm=wavelength,
            targets=torch.zeros(len(sets), dtype=torch.int64),
            valid=valid,
        )
        return self._features(batch.to(self._device)).cpu().numpy()

    def _image(self, row: pd.Series) -> tuple[torch.Tensor, torch.Tensor]:
        """Read an image at the sets' size, over its valid pixels only."""
        plan = self._plans[row["sensor"]]
        pixels, valid = self._archive.read_physical(row["sensor"], np.array([row["row"]]), list(plan.bands))
        mean, std = (np.asarray(values[0], np.float32)[:, None, None] for values in (plan.mean, plan.std))
        found = torch.from_numpy(plan.filled_up(((pixels - mean) / std * valid[:, None]).astype(np.float32)))
        seen = torch.from_numpy(valid[:, None].astype(np.float32))
        smaller = self._side < pixels.shape[-1]
        size = (self._side, self._side)
        found, share = (F.interpolate(one, size, mode="area" if smaller else "bilinear") for one in (found, seen))
        there = share[0, 0] >= 0.5
        return found[0] / share[0].clamp(min=1e-6) * there, there
