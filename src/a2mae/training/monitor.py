"""Follow a run: rows of metrics, a progress bar, and measures on a few fixed image sets.

`metrics.csv` holds what the seed decides, so two runs write the same bytes; `timing.csv` holds what the clock decides.
A falling loss does not tell whether features collapse (docs/methods.md, traps): effective rank and standard deviation
of the features are measured from the first step on, and a kNN that needs no labels with the held-out loss.
"""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from a2mae.files import flush, telling_where, write_bytes
from a2mae.models import ImageSetBatch, Pretrainer
from a2mae.training.data.draw import Draw
from a2mae.training.data.index import HELD_OUT, TRAIN
from a2mae.training.data.loader import SampleReader
from a2mae.training.data.prepare import BandTables, RawBatch, prepare

_LOG = logging.getLogger(__name__)

METRICS_FILE = "metrics.csv"
TIMING_FILE = "timing.csv"


class MetricsFile:
    """A CSV file that grows by whole lines, so that a killed run can go on with it."""

    def __init__(self, path: Path, columns: tuple[str, ...], *, resume_at: int) -> None:
        """Start the file, or go on with it.

        Args:
            path: The file.
            columns: Its header; the first is `step`.
            resume_at: Rows of later steps are dropped, since the resumed run writes them again; 0 starts afresh.
        """
        self._path, self._columns = path, columns
        kept = [row for row in read_metrics(path) if int(row["step"]) <= resume_at] if resume_at else []
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(kept)
        write_bytes(path, buffer.getvalue().encode())

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add one row.

        Args:
            row: Values by column; missing ones are left empty, floats read back as the same number.

        Raises:
            KeyError: If there is no such column.
        """
        unknown = set(row) - set(self._columns)
        if unknown:
            raise KeyError(f"{self._path.name} has no column {', '.join(sorted(unknown))}")
        cells = ["" if row.get(name) is None else repr(row[name]) for name in self._columns]
        # One write of one line in append mode: a killed run leaves whole lines.
        with telling_where(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(",".join(cells) + "\n")

    def flush(self) -> None:
        """Wait until every row has reached the disk."""
        flush(self._path)

    def last(self) -> dict[str, float | int | None]:
        """Read the last row back, as it was given to `append`."""
        row = read_metrics(self._path)[-1]
        whole = ("step", "samples")
        return {name: (int if name in whole else float)(text) if text else None for name, text in row.items()}


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the rows of a `MetricsFile`; a line that a crash has cut short is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    return [row for row in rows if None not in row and None not in row.values()]


class ProgressBar:
    """A bar on a terminal; in a pipe or a log file one line every tenth of the run."""

    def __init__(self, steps: int, start: int, *, shown: bool) -> None:
        """Show the bar.

        Args:
            steps: Steps of the whole run.
            start: Steps already taken.
            shown: False in all processes but the first.
        """
        self._steps, self._shown = steps, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", desc="pretrain", disable=not self._terminal)
        self._started, self._first = time.monotonic(), start

    def update(self, step: int, loss: float | None) -> None:
        """Show how far the run is.

        Args:
            step: Steps taken in all.
            loss: The newest loss known on the host.
        """
        self._bar.update(1)
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        tenth = max(1, self._steps // 10)
        if self._shown and not self._terminal and (step % tenth == 0 or step == self._steps):
            elapsed = time.monotonic() - self._started
            left = elapsed / max(1, step - self._first) * (self._steps - step)
            shown = "" if loss is None else f", loss {loss:.4f}"
            _LOG.info("step %d of %d%s, %.0f s so far, about %.0f s left", step, self._steps, shown, elapsed, left)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


HELD_OUT_LOSS, TRAINING_SETS_LOSS = "held_out_loss", "training_sets_loss"
"""Two names, so that a loss on sets that were trained on is never taken for one on held-out places."""
_WHOLE = (0.0, 0.0, 1.0)
_NO_FLIP = (False, False, False)
_DRAW_EPOCH = 2**32 - 1  # an epoch that no run reaches: fixed draws
_CHUNK = 32


@dataclass(frozen=True)
class FeatureStatistics:
    """How far features are spread out.

    Attributes:
        effective_rank: exp of the entropy of the normalised singular values (Roy and Vetterli 2007); 1 is collapse.
        feature_std: Mean over the dimensions of the standard deviation over images.
    """

    effective_rank: float
    feature_std: float


class HeldOut:
    """Fixed samples of a run, on which it is measured.

    Attributes:
        from_training: True if the index has no held-out sets, so that training sets stand in.
        loss_name: Column of the loss on them: `held_out_loss`, or `training_sets_loss`.
        positions: `(n,)` the sets, as positions in the index.
    """

    def __init__(self, reader: SampleReader, tables: BandTables, *, sets: int, images: int) -> None:
        """Read the fixed samples once.

        Args:
            reader: The run's reader.
            tables: Its normalisation, on the device.
            sets: At most how many sets.
            images: At most how many images for the features.
        """
        held_out = reader.index.sets_of(HELD_OUT)
        self.from_training = not len(held_out)
        self.loss_name = TRAINING_SETS_LOSS if self.from_training else HELD_OUT_LOSS
        positions = _spread(held_out if len(held_out) else reader.index.sets_of(TRAIN), sets)
        self.positions = positions
        self._reader, self._tables = reader, tables
        self._size = reader.spec.sampled_size
        self._samples = reader.gather([self._fixed_draw(int(p)) for p in positions], positions.tolist())
        members = [np.arange(len(reader.index.row))[reader.index.images_of(int(p))] for p in positions]
        chosen = _spread(np.concatenate(members), images)
        set_of = np.searchsorted(reader.index.offsets, chosen, side="right") - 1
        self._location = torch.from_numpy(np.asarray(reader.index.location[set_of]))
        draws = [Draw(np.asarray([i]), reader.fixed_bands(int(i))[None], _WHOLE, _NO_FLIP) for i in chosen]
        self._images = reader.gather(draws, set_of.tolist())

    def batch(self, samples: slice = slice(None)) -> ImageSetBatch:
        """Give the fixed samples: whole footprints, in red, green and blue where the model takes three bands."""
        return prepare(self._to_device(self._samples[samples]), self._tables, self._size)

    @torch.no_grad()
    def features(self, model: Pretrainer) -> Tensor:
        """Average each fixed image's patch tokens, as `evaluate` does, without telling the place: `(n, D)` float32."""
        parts = []
        for start in range(0, len(self._images.index), _CHUNK):
            raw = self._to_device(self._images[start : start + _CHUNK])
            batch = prepare(raw, self._tables, self._reader.spec.sampling.image_size)
            # The bits of the place in the encoding would answer what the kNN asks of the pixels.
            tokens = model.forward_features(
                batch.pixels[:, 0],
                gsd_m=batch.gsd_m[:, 0],
                day=batch.day[:, 0],
                sensor_id=batch.sensor_id[:, 0],
                wavelength_nm=batch.wavelength_nm[:, 0],
            )
            parts.append(tokens[:, 1:].mean(1).float())
        return torch.cat(parts)

    def same_place_accuracy(self, features: Tensor) -> float | None:
        """Give the share of images whose nearest other image shows the same place: kNN (k = 1, cosine) without labels.

        Args:
            features: As from `features`.

        Returns:
            None if no place has two images or there is only one place.
        """
        place = self._location.to(features.device)
        same = place[:, None] == place[None]
        same.fill_diagonal_(False)
        asked = same.any(1)
        if not bool(asked.any()) or bool((place == place[0]).all()):
            return None
        unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
        similarity = unit @ unit.T
        similarity.fill_diagonal_(-2.0)
        found = same.gather(1, similarity.argmax(1, keepdim=True))[:, 0]
        return float(found[asked].float().mean())

    @torch.no_grad()
    def loss(self, model: Pretrainer, seed: int) -> float:
        """Compute the loss on the fixed samples under fixed masks."""
        device = self._tables.gain[0].device
        masks = torch.Generator(device).manual_seed(seed % 2**63)
        total = weight = torch.zeros((), device=device)
        for start in range(0, len(self.positions), _CHUNK):
            output = model(self.batch(slice(start, start + _CHUNK)), generator=masks)
            total = total + output.loss * output.token_weight.sum()
            weight = weight + output.token_weight.sum()
        return float(total / weight.clamp(min=1))

    def _fixed_draw(self, position: int) -> Draw:
        draw = self._reader.draw(_DRAW_EPOCH, position)
        bands = np.stack([self._reader.fixed_bands(int(image)) for image in draw.images])
        return Draw(draw.images, bands, _WHOLE, _NO_FLIP)

    def _to_device(self, raw: RawBatch) -> RawBatch:
        return raw.to(self._tables.gain[0].device)


def feature_statistics(features: Tensor) -> FeatureStatistics:
    """Measure effective rank and standard deviation of features.

    Args:
        features: `(n, D)`.
    """
    # In float64 on the CPU: a few hundred rows, and the same digits on every machine.
    centred = features.detach().to("cpu", torch.float64)
    centred = centred - centred.mean(0)
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return FeatureStatistics(float(entropy.exp()), float(centred.pow(2).mean(0).sqrt().mean()))


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the values, evenly over all of them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).astype(np.int64)]
