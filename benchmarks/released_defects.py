"""Draws docs/figures/released_masking.svg: what the released A²-MAE masking shows and where it puts it, beside ours.

Usage: python benchmarks/released_defects.py [--quick] [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from a2mae.models.layers.masking import draw_mask

SIDE, IMAGES = 14, 3
PLACES = SIDE * SIDE
SAME_SOURCE = (True, True, False)
TITLES = ("image 1: anchor", "image 2: another date", "image 3: another sensor")
COLOURS = {"hidden": "#d9dde3", "right": "#2f7d4f", "wrong": "#c8402f", "seen": "#33608c"}


def main() -> None:
    """Simulate both rules, write the figure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws for the percentages")
    default = Path(__file__).parents[1] / "docs" / "figures" / "released_masking.svg"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    draws = 50 if arguments.quick else 2000

    generator = torch.Generator().manual_seed(0)
    wrong = seen_elsewhere = kept = 0
    for _ in range(draws):
        visible, decoded = released_rule(generator)
        places = torch.arange(IMAGES * PLACES)
        wrong += int((decoded[decoded >= 0] != places[decoded >= 0]).sum())
        kept += len(visible)
        seen_elsewhere += int((visible >= PLACES).sum())
    ours = draw_mask(
        "anchor",
        torch.ones(1, IMAGES, PLACES, dtype=torch.bool),
        torch.tensor([SAME_SOURCE]),
        0.25,
        torch.Generator().manual_seed(0),
    )
    visible, decoded = released_rule(torch.Generator().manual_seed(0))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(figure(visible, decoded, ours.hidden[0], wrong / kept), encoding="utf-8")
    print(f"RESULT draws={draws} seen_outside_anchor={seen_elsewhere / kept:.4f} put_in_wrong_place={wrong / kept:.4f}")


def released_rule(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The released rule restated: the kept token ids, and which token each place decodes (-1: none)."""
    anchor = torch.randperm(PLACES, generator=generator)
    parts = [
        anchor if image == 0 or not same else torch.randperm(PLACES, generator=generator)
        for image, same in enumerate(SAME_SOURCE)
    ]
    order = torch.cat([part + image * PLACES for image, part in enumerate(parts)])
    visible = order[: IMAGES * PLACES // 4]
    padded = torch.cat([visible, torch.full((IMAGES * PLACES - len(visible),), -1)])
    return visible, padded[order]  # the permutation where its inverse is needed


def figure(visible: torch.Tensor, decoded: torch.Tensor, hidden: torch.Tensor, wrong_share: float) -> str:
    """Three rows of three grids as SVG."""
    shown = torch.zeros(IMAGES * PLACES, dtype=torch.bool)
    shown[visible] = True
    places = torch.arange(IMAGES * PLACES)
    placed = ["hidden" if token < 0 else "right" if token == place else "wrong" for place, token in enumerate(decoded)]
    rows = [
        ("released: seen by the encoder", ["seen" if flag else "hidden" for flag in shown[places]]),
        (f"released: decoded at its place / elsewhere ({wrong_share:.1%})", placed),
        ("ours: seen, each decoded at its own place", ["hidden" if flag else "right" for flag in hidden.flatten()]),
    ]
    cell, gap, top = 8, 26, 46
    width, height = IMAGES * (SIDE * cell + gap) + gap, len(rows) * (SIDE * cell + top) + 18
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for row, (title, kinds) in enumerate(rows):
        y = row * (SIDE * cell + top) + top
        parts.append(f'<text x="{gap}" y="{y - 22}" font-weight="bold">{title}</text>')
        for image in range(IMAGES):
            x = gap + image * (SIDE * cell + gap)
            parts.append(f'<text x="{x}" y="{y - 7}" fill="#555">{TITLES[image]}</text>')
            own = kinds[image * PLACES : (image + 1) * PLACES]
            for kind, colour in COLOURS.items():
                squares = "".join(
                    f"M{x + place % SIDE * cell} {y + place // SIDE * cell}h7v7h-7z"
                    for place in range(PLACES)
                    if own[place] == kind
                )
                if squares:
                    parts.append(f'<path d="{squares}" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
