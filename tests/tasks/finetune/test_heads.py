"""Heads by themselves: what they can draw."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from a2mae.tasks.finetune.heads import RCFDecoder


def test_the_default_head_draws_what_is_finer_than_a_patch() -> None:
    """Every pixel's class is told by its own band alone, which nothing that speaks patch by patch can draw."""
    torch.manual_seed(0)
    head = RCFDecoder([4], 2, patch=8, bands=3)
    images = torch.randn(32, 1, 3, 32, 32)
    head.rcf.fit(images[:, 0], patch_size=8, generator=torch.Generator().manual_seed(0))
    wanted = (images[:, 0, 1] > 0).long()
    tokens = [torch.randn(32, 4, 4, 4)]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    assert torch.equal(head.pixels(images[:, 0]), torch.zeros(32, 2, 32, 32)), "it starts as what a patch says"
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(head(tokens, images), wanted).backward()
        optimizer.step()
    unseen = torch.randn(32, 1, 3, 32, 32)
    found = head.eval()(tokens, unseen).argmax(1)
    assert (found == (unseen[:, 0, 1] > 0)).float().mean() > 0.9
