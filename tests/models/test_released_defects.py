"""The released A²-MAE masking has two defects (docs/methods.md, A²-MAE). Reproduced on purpose; ours has neither."""

from __future__ import annotations

import torch

from a2mae.models.layers.masking import draw_mask, mask_from_hidden

IMAGES, PATCHES = 3, 196


def released_rule(same_source: list[bool], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What the released code does, restated: the ids it keeps and the ids it restores with.

    Permutations of the images' patches are concatenated (a same-source image has its own, another source the
    anchor's), the first quarter of the concatenation is kept, and the concatenation itself, not its inverse, is used to
    put the tokens back.
    """
    anchor = torch.randperm(PATCHES, generator=generator)
    order = torch.cat(
        [
            (anchor if image == 0 or not same else torch.randperm(PATCHES, generator=generator)) + image * PATCHES
            for image, same in enumerate(same_source)
        ]
    )
    return order[: IMAGES * PATCHES // 4], order


def put_back(kept_tokens: torch.Tensor, restore: torch.Tensor) -> torch.Tensor:
    """MAE's un-shuffling: mask tokens appended, then gathered by the restore indices. -1 marks a mask token."""
    padded = torch.cat([kept_tokens, torch.full((IMAGES * PATCHES - len(kept_tokens),), -1)])
    return padded[restore]


def test_defect_a_only_the_anchor_is_ever_seen():
    kept, _ = released_rule([True, True, False], torch.Generator().manual_seed(0))
    assert len(kept) == 147
    assert (kept < PATCHES).all(), "all kept tokens are the anchor's"


def test_defect_b_visible_tokens_return_to_wrong_places():
    wrong = total = 0
    for seed in range(200):
        kept, restore = released_rule([True, True, False], torch.Generator().manual_seed(seed))
        tokens = torch.arange(IMAGES * PATCHES)[kept]  # each token is its own place
        decoded = put_back(tokens, restore)
        placed = decoded >= 0
        wrong += int((decoded[placed] != torch.arange(IMAGES * PATCHES)[placed]).sum())
        total += int(placed.sum())
    assert wrong / total > 0.985, "about 99 % of the visible tokens are decoded in another place"


def test_the_inverse_permutation_would_have_been_right():
    kept, restore = released_rule([True, True, False], torch.Generator().manual_seed(0))
    decoded = put_back(kept, restore.argsort())
    placed = decoded >= 0
    assert torch.equal(decoded[placed], torch.arange(IMAGES * PATCHES)[placed])


def test_ours_has_neither_defect():
    valid = torch.ones(200, IMAGES, PATCHES, dtype=torch.bool)
    same = torch.tensor([True, True, False]).expand(200, 3)
    mask = draw_mask("anchor", valid, same, 0.25, torch.Generator().manual_seed(0))
    assert ((~mask.hidden).sum(-1) == 49).all(), "a quarter of every image is seen"
    places = torch.arange(IMAGES * PATCHES).view(1, IMAGES, PATCHES, 1).expand(200, -1, -1, -1).float()
    decoded = mask.restore(mask.select(places), torch.full((1, 1, 1), -1.0))
    assert torch.equal(decoded[~mask.hidden], places[~mask.hidden]), "and every token returns to its own place"


def test_defect_a_is_on_offer_as_a_choice():
    valid = torch.ones(2, IMAGES, PATCHES, dtype=torch.bool)
    mask = draw_mask("anchor_visible", valid, torch.ones(2, 3, dtype=torch.bool), 0.25)
    assert (~mask.hidden).sum(-1).tolist() == [[147, 0, 0]] * 2
    again = mask_from_hidden(mask.hidden, valid)
    assert torch.equal(again.hidden, mask.hidden)
