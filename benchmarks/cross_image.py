"""Does A²-MAE use the other images of a set? On the simulated Earth, by what the others show of a hidden place.

Sets of three: Sentinel-2 (anchor), Sentinel-2 of another date, Landsat of the same period, on one 10 m grid without
misregistration, clouds or change. Places of the eastern quarter of every region are held out. After training, the same
hidden patches of the anchor are reconstructed three times: nobody else shows them, the other date shows them, the other
sensor shows them; the number of visible patches of every image stays the same.

Usage: python benchmarks/cross_image.py [--quick]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.warp import Resampling, reproject
from tqdm import tqdm

from a2mae.models import ImageSetBatch, create_model
from a2mae.simulate.parameters import AcquisitionParameters, RegionParameters, SimulateParameters
from a2mae.simulate.run import simulate

CHIP, PATCH, KEPT = 64, 8, 16  # 64 places per image, a quarter of them visible
CONDITIONS = ("nobody", "other_date", "other_sensor")


def main() -> None:
    """Simulate, train once per masking rule, measure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller world and fewer steps: under a minute")
    parser.add_argument("--steps", type=int, default=3000, help="of each rule; 3,000 take eleven minutes of one core")
    arguments = parser.parse_args()
    steps = 60 if arguments.quick else arguments.steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{platform.machine()} {device} torch {torch.__version__} threads {torch.get_num_threads()}, {steps} steps")

    with tempfile.TemporaryDirectory() as folder:
        train, held_out = load_sets(Path(folder), footprints=3 if arguments.quick else 6)
    print(f"{len(train)} places to train on, {len(held_out)} held out")
    results = {}
    for masking in ("anchor", "independent"):
        started = time.process_time()
        model = train_model(train.to(device), masking, steps)
        losses = measure(model, held_out.to(device))
        seconds = time.process_time() - started
        print(f"{masking:12s} " + "  ".join(f"{c} {losses[c]:.4f}" for c in CONDITIONS) + f"  ({seconds:.0f} CPU s)")
        results |= {f"{masking}_{condition}": losses[condition] for condition in CONDITIONS}
    print("RESULT " + " ".join(f"{name}={value:.4f}" for name, value in results.items()))


def load_sets(folder: Path, footprints: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`(n, 3, 3, 64, 64)` normalised chips of blue, red and near infrared: to train on, and held out."""
    still = {"shift_px": 0.0}
    dates = (
        AcquisitionParameters(period="before", **still),
        AcquisitionParameters(period="before", season="dormant", **still),
    )
    parameters = SimulateParameters(
        workers=1,
        change_share=0,
        typical_shift_px=0,
        largest_shift_px=0,
        regions=(
            RegionParameters(name="plain", lon=12.3, lat=51.9, biome="temperate_plain", footprints=footprints),
            RegionParameters(name="south", lon=-55.2, lat=-12.6, biome="temperate_plain", footprints=footprints),
        ),
        acquisitions={"sentinel-2-l2a": dates, "landsat-oli-c2-l2": dates[:1]},
    )
    simulate(parameters, folder)
    train, held_out = [], []
    for region in ("plain", "south"):
        first, second = sorted((folder / "sentinel-2-l2a").glob(f"*_{region}_*"))
        (landsat,) = (folder / "landsat-oli-c2-l2").glob(f"*_{region}_*")
        with rasterio.open(first / "B04.tif") as grid:
            like = {"crs": grid.crs, "transform": grid.transform, "shape": grid.shape}
        bands = [[scene / f"{name}.tif" for name in ("B02", "B04", "B08")] for scene in (first, second)]
        bands.append([landsat / f"{name}.tif" for name in ("blue", "red", "nir08")])
        image = np.stack([[on_grid(path, like) for path in paths] for paths in bands])  # (3, 3, H, W)
        image = (image - image.mean((2, 3), keepdims=True)) / image.std((2, 3), keepdims=True)
        rows, columns = (side // CHIP for side in image.shape[2:])
        for row in range(1, rows - 1):
            for column in range(1, columns - 1):
                chip = image[:, :, row * CHIP : (row + 1) * CHIP, column * CHIP : (column + 1) * CHIP]
                (held_out if column >= 0.75 * columns else train).append(chip)
    return torch.tensor(np.stack(train)), torch.tensor(np.stack(held_out))


def on_grid(path: Path, like: dict) -> np.ndarray:
    """One band on the anchor's 10 m grid."""
    out = np.zeros(like["shape"], dtype="float32")
    with rasterio.open(path) as band:
        reproject(
            rasterio.band(band, 1),
            out,
            dst_crs=like["crs"],
            dst_transform=like["transform"],
            resampling=Resampling.bilinear,
        )
    return out


def batch_of(pixels: torch.Tensor) -> ImageSetBatch:
    """Sets as the models take them."""
    sets, device = pixels.shape[0], pixels.device

    def per_image(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device).expand(sets, -1)

    return ImageSetBatch(
        pixels=pixels,
        gsd_m=per_image(10, 10, 10),
        geosot_bits=torch.zeros(sets, 3, 256, device=device),
        sensor_id=per_image(0, 0, 1, dtype=torch.int64),
        day=per_image(18400, 18600, 18402),
        same_source_as_anchor=per_image(1, 1, 0, dtype=torch.bool),
        valid=torch.ones(sets, 3, CHIP, CHIP, dtype=torch.bool, device=device),
        wavelength_nm=torch.tensor([490.0, 660.0, 840.0], device=device).expand(sets, 3, -1),
        lonlat_deg=torch.zeros(sets, 3, 2, dtype=torch.float64, device=device),
        index=torch.arange(sets, device=device),
    )


def train_model(sets: torch.Tensor, masking: str, steps: int) -> torch.nn.Module:
    """A small A²-MAE, each image its own encoding, trained with one masking rule."""
    torch.manual_seed(0)
    model = create_model(
        "a2mae_vit_tiny_patch8",
        embed_dim=128,
        depth=4,
        decoder_dim=64,
        decoder_depth=1,
        encoding="own",
        masking=masking,
        attention_init="similar",
        prediction_init=0.05,
    ).to(sets.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in tqdm(range(steps), desc=masking, mininterval=2):
        chosen = torch.randint(len(sets), (16,), generator=generator)
        turn = int(torch.randint(4, (1,), generator=generator))
        loss = model(batch_of(torch.rot90(sets[chosen], turn, (3, 4))), fully_valid=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def measure(model: torch.nn.Module, sets: torch.Tensor) -> dict[str, float]:
    """Mean loss of the same hidden anchor patches, by who else shows them."""
    generator = torch.Generator().manual_seed(1)
    losses = dict.fromkeys(CONDITIONS, 0.0)
    places = (CHIP // PATCH) ** 2
    for chunk in sets.split(64):
        order = torch.rand(len(chunk), places, generator=generator).argsort(1)
        visible, asked, rest = order[:, :KEPT], order[:, KEPT : 2 * KEPT], order[:, 2 * KEPT :]
        for condition in CONDITIONS:
            shown = [
                visible,
                asked if condition == "other_date" else rest[:, :KEPT],
                asked if condition == "other_sensor" else rest[:, -KEPT:],
            ]
            hidden = torch.ones(len(chunk), 3, places, dtype=torch.bool)
            for image, ids in enumerate(shown):
                hidden[:, image].scatter_(1, ids, False)
            out = model(batch_of(chunk), hidden=hidden.to(chunk.device))
            losses[condition] += float(out.token_loss[:, 0].cpu().gather(1, asked).mean(1).sum()) / len(sets)
    return losses


if __name__ == "__main__":
    main()
