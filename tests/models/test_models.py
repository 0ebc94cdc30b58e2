from __future__ import annotations

import pytest
import torch

from a2mae.errors import InputError
from a2mae.models import create_model, list_models, loss_by_group
from a2mae.models.encoder import BANDS, ENCODINGS
from a2mae.models.layers.masking import STRATEGIES

METHODS = ("a2mae", "scale_mae", "mae", "satmae")


@pytest.mark.parametrize("all_valid", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_reaches_every_parameter(method, all_valid, tiny, make_batch):
    model = create_model(f"{method}_vit_tiny_patch8", **tiny)
    batch = make_batch(all_valid=all_valid)
    out = model(batch)
    out.loss.backward()
    assert out.loss.dtype == torch.float32 and out.loss.ndim == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert out.prediction["pixels"].shape == batch.pixels.shape
    tokens = (32 // model.pixels_per_token) * (48 // model.pixels_per_token)
    assert out.hidden.shape == out.token_loss.shape == (2, 3, tokens)
    assert not out.token_weight[~out.hidden].any(), "a visible token was scored"


@pytest.mark.parametrize("method", METHODS)
def test_loss_by_group_adds_up(method, tiny, make_batch):
    batch = make_batch(all_valid=False)
    model = create_model(f"{method}_vit_tiny_patch8", **tiny)
    out = model(batch)
    total, weight = loss_by_group(out, batch.sensor_id, batch.same_source_as_anchor, 3)
    assert total.shape == weight.shape == (3, 3)
    assert not weight[2].any() and not weight[1, :2].any() and not weight[0, 2]
    assert weight[0, 0] > 0 and weight[0, 1] > 0 and weight[1, 2] > 0
    mean = total.sum() / weight.sum()
    assert mean.item() == pytest.approx(out.loss.item(), rel=1e-2 if method == "scale_mae" else 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_masks_can_be_drawn_again_or_given(method, tiny, make_batch):
    model = create_model(f"{method}_vit_tiny_patch8", **tiny).eval()
    first, second = (model(make_batch(), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.hidden, second.hidden) and first.loss == second.loss
    given = model(make_batch(), hidden=first.hidden)
    torch.testing.assert_close(given.loss, first.loss)


@pytest.mark.parametrize("method", METHODS)
def test_invalid_pixels_count_for_nothing(method, tiny, make_batch):
    model = create_model(f"{method}_vit_tiny_patch8", **tiny).eval()
    batch = make_batch(all_valid=False)
    out = model(batch, generator=torch.Generator().manual_seed(3))
    patch = model.pixels_per_token
    any_valid = batch.valid.unfold(2, patch, patch).unfold(3, patch, patch).flatten(2, 3).flatten(3).any(-1)
    assert not (~out.hidden & ~any_valid).any(), "shown"
    assert not out.token_weight[~any_valid].any(), "scored"
    # What stands in pixels of a token without any valid pixel changes nothing.
    dead = (~any_valid).unflatten(2, (32 // patch, 48 // patch))
    dead = dead.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    object.__setattr__(batch, "pixels", batch.pixels + 9 * dead[:, :, None])
    torch.testing.assert_close(
        model(batch, generator=torch.Generator().manual_seed(3)).loss, out.loss, atol=1e-6, rtol=0
    )


def test_names_and_arguments():
    assert "a2mae_vit_large_patch16" in list_models()
    with pytest.raises(ValueError, match="did you mean 'a2mae_vit_large_patch16'"):
        create_model("a2mae_vit_larg_patch16")
    with pytest.raises(TypeError, match="did you mean 'masking'"):
        create_model("a2mae_vit_tiny_patch16", maskin="anchor")
    with pytest.raises(ValueError, match="unknown masking strategy 'x'"):
        create_model("a2mae_vit_tiny_patch16", masking="x")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bands", BANDS)
def test_what_can_be_chosen_together_trains_and_the_rest_is_refused_before(method, encoding, bands, tiny, make_batch):
    chosen = {**tiny, "encoding": encoding, "bands": bands, "groups": ((0,), (1, 2)) if bands == "groups" else ()}
    expected = {
        "draw3": encoding == "temporal" if method == "satmae" else encoding != "group",
        "wavelength": encoding != "group" and method in ("a2mae", "mae"),
        "groups": encoding == "group" and method == "satmae",
    }
    if not expected[bands]:
        with pytest.raises(InputError):
            create_model(f"{method}_vit_tiny_patch8", **chosen)
        return
    loss = create_model(f"{method}_vit_tiny_patch8", **chosen)(make_batch(width=32)).loss
    assert loss.isfinite() and loss > 0


@pytest.mark.parametrize("method", ["a2mae", "mae"])
def test_groups_of_bands_are_satmaes(method, tiny):
    with pytest.raises(InputError, match=r"bands='groups' is SatMAE's: choose satmae"):
        create_model(f"{method}_vit_tiny_patch8", **tiny, bands="groups", encoding="group", groups=((0,), (1, 2)))


@pytest.mark.parametrize("images", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("encoding", ["paper", "own"])
@pytest.mark.parametrize("masking", STRATEGIES)
def test_sets_of_any_size_and_any_shape(images, encoding, masking, *, tiny, make_batch, encoded):
    model = create_model("a2mae_vit_tiny_patch8", encoding=encoding, masking=masking, **tiny)
    for height, width, bands in ((32, 48, 3), (64, 16, 3)):
        batch = make_batch(images=images, height=height, width=width, bands=bands, all_valid=False)
        out = model(batch)
        assert out.loss.isfinite() and out.prediction["pixels"].shape == batch.pixels.shape
        assert encoded(model, batch).shape == (2, images, height * width // 64, 64)


@pytest.mark.parametrize(
    ("method", "given"),
    [(method, {}) for method in METHODS]
    + [("a2mae", given) for given in ({"bands": "wavelength"}, {"encoding": "own"}, {"masking": "random"})],
)
def test_a_step_never_waits_for_the_device(method, given, tiny, make_batch):
    """On the meta device there are no values: whatever reads one (a host sync on an accelerator) fails there."""
    with torch.device("meta"):
        model = create_model(f"{method}_vit_tiny_patch8", **tiny, **given)
    batch = make_batch().to("meta")
    out = model(batch)
    out.loss.backward()
    loss_by_group(out, batch.sensor_id, batch.same_source_as_anchor, 3)
    assert out.loss.device.type == "meta" and out.hidden.shape[:2] == (2, 3)


def test_the_same_seed_gives_the_same_model_and_step(tiny, make_batch):
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(create_model("a2mae_vit_tiny_patch8", **tiny)(make_batch()).loss)
    assert torch.equal(*losses)


@torch.no_grad()
def test_similar_attention_starts_by_looking_at_what_is_alike(tiny):
    """Keys equal queries, in encoder and decoder; the scores of a token with itself are its largest on the whole."""
    torch.manual_seed(0)
    plain = create_model("a2mae_vit_tiny_patch8", **tiny)
    similar = create_model("a2mae_vit_tiny_patch8", attention_init="similar", **tiny)
    tokens = torch.nn.functional.layer_norm(torch.randn(40, tiny["embed_dim"]), (tiny["embed_dim"],))
    best = []
    for model in (plain, similar):
        query, key, _ = model.encoder.blocks[0].attn.qkv(tokens).chunk(3, dim=-1)
        best.append(((query @ key.T).argmax(-1) == torch.arange(40)).float().mean())
    assert best[1] == 1 and best[0] < 0.3
    for block in similar.decoder.blocks:
        query, key, _ = block.attn.qkv.weight.chunk(3)
        assert torch.equal(query, key)


@torch.no_grad()
def test_a_small_prediction_head_starts_from_the_mean(tiny, make_batch):
    loud = create_model("a2mae_vit_tiny_patch8", **tiny)(make_batch()).prediction["normalized"]
    quiet = create_model("a2mae_vit_tiny_patch8", prediction_init=0.05, **tiny)(make_batch()).prediction["normalized"]
    assert quiet.std() < 0.2 * loud.std()
