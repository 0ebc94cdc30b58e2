"""The encoder that every method trains and every task uses: patches and their encodings → transformer → tokens.

It is built of timm's blocks and speaks timm's words (`forward_features`, `forward_intermediates`, `num_features`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from a2mae.errors import InputError
from a2mae.models.batch import check_gsd, check_images, check_lonlat
from a2mae.models.layers import encodings
from a2mae.models.layers.bands import GroupPatchEmbed, PatchEmbed, RCFPatchEmbed, WavelengthPatchEmbed
from a2mae.models.layers.blocks import Matcher, Stage, build_blocks, init_weights
from a2mae.models.layers.encodings import Place
from a2mae.models.layers.geosot import footprint_bits
from a2mae.models.layers.masking import Mask, patchify
from a2mae.models.layers.rcf import KERNEL_SIZE

ENCODINGS: Mapping[str, tuple[str, ...]] = {
    "sincos": (),  # patch index (MAE)
    "gsd": ("gsd_m",),  # patch index times the GSD (Scale-MAE)
    "paper": ("gsd_m", "lonlat_deg"),  # A²-MAE
    "own": ("gsd_m", "lonlat_deg", "day"),  # each image's own place, GSD and date [ours]
    "temporal": ("day",),  # SatMAE, by date
    "group": (),  # SatMAE, by group of bands
}
"""The encodings, and what each reads besides the images."""
BANDS = ("draw3", "wavelength", "groups")
STEMS = ("linear", "rcf")
ATTENTION_INITS = ("xavier", "similar")
_GSD_M = (0.001, 1_000_000)
_GSD_M = (0.001, 1_000_000)
_MOST_BLOCKS = 1000


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What defines an encoder; it is saved with the weights.

    Attributes:
        embed_dim: Width D.
        depth: Blocks.
        num_heads: Attention heads per block.
        mlp_ratio: Hidden width of a block's MLP over D.
        patch_size: Side of a patch in pixels.
        in_chans: Bands read at once; not for `bands="wavelength"`.
        bands: `draw3` for a fixed number of drawn bands, `wavelength` for any number described by their wavelengths,
            `groups` for SatMAE's groups of a fixed list of bands.
        groups: Band numbers of each group, every band of `in_chans` once; only for `bands="groups"`.
        stem: From a patch to its token: `linear`, as published, or `rcf`: its random convolution features beside its
            pixels (`layers.rcf`); only for `bands="draw3"`.
        spectral_rank: Channels that bands are mixed into; only for `bands="wavelength"`.
        encoding: One of `ENCODINGS`.
        gsd_reference_m: The GSD G whose ratio r = GSD / G is 1.
        geosot_layer: GeoSOT layer of the training data's codes: 14 (cells of 2 minutes) for footprints of 1,920 m.
        drop_path: Stochastic depth of the last block, growing linearly from 0 at the first; for finetuning.
        attention_init: `xavier`, as published, or `similar`: keys start equal to queries (`init_weights`).
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    in_chans: int = 3
    bands: str = "draw3"
    groups: tuple[tuple[int, ...], ...] = ()
    stem: str = "linear"
    spectral_rank: int = 32
    encoding: str = "sincos"
    gsd_reference_m: float = 1.0
    geosot_layer: int = 14
    drop_path: float = 0.0
    attention_init: str = "xavier"

    def __post_init__(self) -> None:
        """Check that the model can be built."""
        self._check_numbers()
        if self.encoding not in ENCODINGS:
            raise InputError(f"unknown encoding {self.encoding!r}; choose one of {', '.join(ENCODINGS)}")
        if self.bands not in BANDS:
            raise InputError(f"unknown bands {self.bands!r}; choose one of {', '.join(BANDS)}")
        if self.stem not in STEMS:
            raise InputError(f"unknown stem {self.stem!r}; choose one of {', '.join(STEMS)}")
        if self.stem == "rcf":
            self._check_rcf("stem='rcf'")
        if self.attention_init not in ATTENTION_INITS:
            raise InputError(
                f"unknown attention_init {self.attention_init!r}; choose one of {', '.join(ATTENTION_INITS)}"
            )
        object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))  # JSON gives lists
        members = sorted(band for group in self.groups for band in group)
        if (self.bands == "groups") != (self.encoding == "group"):
            raise InputError("bands='groups' and encoding='group' go together: set both or neither")
        if (self.bands == "groups" and members != list(range(self.in_chans))) or (self.bands != "groups" and members):
            raise InputError(
                f"groups must hold each of the {self.in_chans} bands once, and only with bands='groups',"
                f" found {self.groups} with bands={self.bands!r}"
            )
        for name in (
            "embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "in_chans", "spectral_rank",
            "gsd_reference_m", "geosot_layer",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, found {getattr(self, name)}")
        if not _GSD_M[0] <= self.gsd_reference_m <= _GSD_M[1]:
            raise InputError(
                f"gsd_reference_m must be {_GSD_M[0]} to {_GSD_M[1]:,} metres, found {self.gsd_reference_m}"
            )
        if self.embed_dim % self.num_heads:
            raise InputError(f"embed_dim ({self.embed_dim}) must be a multiple of num_heads ({self.num_heads})")
        multiple = {"sincos": 4, "gsd": 4, "group": 16}.get(self.encoding, 32)
        limited = "lonlat_deg" in ENCODINGS[self.encoding]  # the 256 bits of a location are a quarter of the width
        if self.embed_dim % multiple or (limited and self.embed_dim > 1024):
            limit = " and at most 1024" if limited else ""
            raise InputError(
                f"encoding {self.encoding!r} needs an embed_dim that is a multiple of {multiple}{limit},"
                f" found {self.embed_dim}"
            )

    def _check_numbers(self) -> None:
        """Refuse what is no number where one is needed, and more blocks than are built in a second."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool)):
                raise InputError(f"{field.name} must be a whole number, found {value!r}")
            if field.type == "float" and not (isinstance(value, int | float) and math.isfinite(value)):
                raise InputError(f"{field.name} must be a finite number, found {value!r}")
            if field.name.endswith("depth") and value > _MOST_BLOCKS:
                raise InputError(f"{field.name} must be at most {_MOST_BLOCKS:,} blocks, found {value}")

    def _check_rcf(self, option: str) -> None:
        """Refuse random convolution features of bands or patches that they cannot be made of."""
        if self.bands != "draw3" or self.patch_size < KERNEL_SIZE:
            raise InputError(
                f"{option} needs a fixed number of bands (bands='draw3', found {self.bands!r}) and patches of at least"
                f" {KERNEL_SIZE} pixels (found {self.patch_size})"
            )


class Encoder(nn.Module):
    """A pre-norm vision transformer (norm eps 1e-6, qkv bias) over the patches of one image or of a set.

    Attributes:
        feature_info: What each block gives.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.num_features = self.embed_dim = config.embed_dim
        self.patch_size = config.patch_size
        self.patch_embed = _patch_embed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.blocks = build_blocks(
            config.embed_dim, config.depth, config.num_heads, config.mlp_ratio, drop_path=config.drop_path
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.feature_info = (Stage(config.embed_dim, config.patch_size),) * config.depth
        init_weights(self, config.attention_init)
        nn.init.normal_(self.cls_token, std=0.02)

    # -- for tasks -----------------------------------------------------------------------------------------------

    def forward_features(
        self,
        images: Tensor,
        *,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        sensor_id: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> Tensor:
        """Encode single images, final norm applied.

        Args:
            images: `(B, C, H, W)` normalised, H and W multiples of the patch.
            gsd_m: `(B,)` or one number, metres per pixel as fed; needed by `gsd`, `paper` and `own`.
            lonlat_deg: `(B, 2)` (lon, lat) of each centre, degrees; None: place unknown (zero bits).
            day: `(B,)` days since 1970-01-01 UTC; None: date unknown. Read by `own` and `temporal`.
            sensor_id: Not read by any encoding; accepted so that all encoders are called alike.
            wavelength_nm: `(B, C)` or `(C,)` nanometres; only for `bands="wavelength"`.

        Returns:
            `(B, 1 + N, D)`, CLS first.

        Raises:
            ValueError: If an input is missing, of the wrong shape, not finite or out of range.
        """
        x = self._embed(images, gsd_m, lonlat_deg, day, wavelength_nm)  # (B, J, N, D)
        return self._merge(self.forward_tokens(x.flatten(1, 2)))

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | int | None = None,
        *,
        norm: bool = False,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        sensor_id: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> list[Tensor]:
        """Give the feature maps after the chosen blocks.

        Args:
            images: As for `forward_features`, like the other arguments.
            indices: Block numbers, negative from the end; an integer n for the last n; None for all.
            norm: Apply the final norm to each map.
            gsd_m: See `forward_features`.
            lonlat_deg: See `forward_features`.
            day: See `forward_features`.
            sensor_id: See `forward_features`.
            wavelength_nm: See `forward_features`.

        Returns:
            Maps `(B, D, h, w)` in the order of `indices`.
        """
        depth = len(self.blocks)
        chosen = list(range(depth)) if indices is None else indices
        chosen = list(range(depth - chosen, depth)) if isinstance(chosen, int) else list(chosen)
        wanted = [index + depth if index < 0 else index for index in chosen]
        if not wanted or not all(0 <= index < depth for index in wanted):
            raise InputError(f"indices must name blocks of 0 to {depth - 1} (or negative), found {indices}")
        height, width = (side // self.patch_size for side in images.shape[-2:])
        x = self._with_cls(self._embed(images, gsd_m, lonlat_deg, day, wavelength_nm).flatten(1, 2))
        maps: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x)
            if index in wanted:
                tokens = self._merge(self.norm(x) if norm else x)[:, 1:]
                maps[index] = torch.unflatten(tokens.transpose(1, 2), 2, (height, width))
        return [maps[index] for index in wanted]

    def forward(
        self,
        images: Tensor,
        gsd_m: Tensor | float | None = None,
        lonlat_deg: Tensor | None = None,
        day: Tensor | None = None,
        wavelength_nm: Tensor | None = None,
    ) -> Tensor:
        """Give the CLS feature of each image, `(B, D)`; arguments as of `forward_features`."""
        x = self.forward_features(images, gsd_m=gsd_m, lonlat_deg=lonlat_deg, day=day, wavelength_nm=wavelength_nm)
        return x[:, 0]

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """Group parameters by depth for timm's layer-wise learning rate decay: embedding, then block by block."""
        # 99999 is timm's sign for "with the group before".
        return {
            "stem": r"^(?:cls_token|patch_embed)",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    # -- for pretraining -----------------------------------------------------------------------------------------

    def embed_set(self, pixels: Tensor, place: Place, wavelength_nm: Tensor | None) -> Tensor:
        """Embed the patches of image sets and add their encodings, before any masking.

        Args:
            pixels: `(B, K, C, H, W)`.
            place: Of the K images.
            wavelength_nm: `(B, K, C)`.

        Returns:
            `(B, K, N, D)`; with groups of bands `(B, K * G, N, D)`.
        """
        batch, images, _, height, width = pixels.shape
        flat_wavelength = None if wavelength_nm is None else wavelength_nm.flatten(0, 1)
        tokens: Tensor = self.patch_embed(pixels.flatten(0, 1), flat_wavelength)  # (B*K, N, D) or (B*K, G, N, D)
        tokens = tokens.reshape(batch, images * max(len(self.config.groups), 1), -1, self.embed_dim)
        return tokens + self.encode((height // self.patch_size, width // self.patch_size), place).to(tokens.dtype)

    def embed_visible(self, pixels: Tensor, place: Place, wavelength_nm: Tensor | None, mask: Mask) -> Tensor:
        """Embed the patches that a mask keeps: `embed_set`, then `mask.select`, without the work for hidden patches.

        Args:
            pixels: `(B, K, C, H, W)`; not for groups of bands.
            place: Of the K images.
            wavelength_nm: `(B, K, C)`.
            mask: Of V tokens.

        Returns:
            `(B, V, D)`.
        """
        side = self.patch_size
        height, width = pixels.shape[-2:]
        patches = mask.select(patchify(pixels, side))  # (B, V, p * p * C)
        single = torch.unflatten(patches.flatten(0, 1), 1, (side, side, -1)).movedim(-1, 1)  # (B * V, C, p, p)
        of_patch = None
        if wavelength_nm is not None:
            image = mask.ids_keep // ((height // side) * (width // side))  # (B, V)
            of_patch = wavelength_nm.gather(1, image[..., None].expand(-1, -1, wavelength_nm.shape[-1])).flatten(0, 1)
        tokens = torch.unflatten(self.patch_embed(single, of_patch)[:, 0], 0, patches.shape[:2])
        encoding = self.encode((height // side, width // side), place)
        return tokens + mask.select(encoding.expand(*pixels.shape[:2], -1, -1)).to(tokens.dtype)

    def encode(self, grid_size: tuple[int, int], place: Place) -> Tensor:
        """Give the encoding of every patch of every image, `(B, K or 1, N, D)` float32."""
        config = self.config
        if config.encoding == "temporal":
            return encodings.temporal_encoding(grid_size, place, config.embed_dim)
        if config.encoding == "group":
            images = place.gsd_m.shape[1]
            encoding = encodings.group_encoding(grid_size, len(config.groups), config.embed_dim, place.gsd_m.device)
            return encoding.repeat(1, images, 1, 1)
        if config.encoding == "paper":
            return encodings.paper_encoding(grid_size, place, config.embed_dim, config.gsd_reference_m)
        if config.encoding == "own":
            return encodings.own_encoding(grid_size, place, config.embed_dim, config.gsd_reference_m)
        # Scale-MAE §3.1, and MAE.
        ratio = place.gsd_m / config.gsd_reference_m if config.encoding == "gsd" else torch.ones_like(place.gsd_m)
        return encodings.sincos_2d(grid_size, ratio, config.embed_dim)

    def forward_tokens(self, tokens: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Run the CLS token and patch tokens through the blocks and the final norm.

        Args:
            tokens: `(B, V, D)`.
            key_padding_mask: `(B, V)` bool, True for tokens that nobody may attend to; None if there are none.

        Returns:
            `(B, 1 + V, D)`.
        """
        x, attention = self._with_cls(tokens), _attended(key_padding_mask)
        for block in self.blocks:
            x = block(x, attn_mask=attention)
        normed: Tensor = self.norm(x)
        return normed

    def forward_blocks(self, tokens: Tensor, key_padding_mask: Tensor | None, indices: Sequence[int]) -> list[Tensor]:
        """Give the tokens after some blocks, `(B, 1 + V, D)` each, without the final norm.

        Args:
            tokens: As of `forward_tokens`.
            key_padding_mask: Likewise.
            indices: Block numbers.
        """
        x, attention = self._with_cls(tokens), _attended(key_padding_mask)
        after = []
        for block in self.blocks[: max(indices) + 1]:
            x = block(x, attn_mask=attention)
            after.append(x)
        return [after[index] for index in indices]

    def _merge(self, tokens: Tensor) -> Tensor:
        """One token per place: the mean over groups of bands, where there are any."""
        groups = len(self.config.groups)
        if not groups:
            return tokens
        places = torch.unflatten(tokens[:, 1:], 1, (groups, -1)).mean(1)
        return torch.cat([tokens[:, :1], places], dim=1)

    def _with_cls(self, tokens: Tensor) -> Tensor:
        # CLS has no position: its encoding is zero (Scale-MAE, A²-MAE and MAE alike).
        return torch.cat([self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _embed(
        self,
        images: Tensor,
        gsd_m: Tensor | float | None,
        lonlat_deg: Tensor | None,
        day: Tensor | None,
        wavelength_nm: Tensor | None,
    ) -> Tensor:
        check_images(images, self.patch_size)
        batch, _, height, width = images.shape
        reads = ENCODINGS[self.config.encoding]
        if gsd_m is None:
            if "gsd_m" in reads:
                raise InputError(
                    f"encoding {self.config.encoding!r} needs gsd_m: metres per pixel of each image as it is fed,"
                    " shape (B,) or one number"
                )
            gsd_m = self.config.gsd_reference_m
        gsd = torch.as_tensor(gsd_m, dtype=torch.float32, device=images.device)
        gsd = gsd.expand(batch) if gsd.ndim == 0 else gsd
        check_gsd(gsd, (batch,))
        bits = None
        if lonlat_deg is not None:
            check_lonlat(lonlat_deg, (batch,))
            if "lonlat_deg" in reads:
                size_m = torch.stack([gsd * width, gsd * height], dim=-1)
                bits = footprint_bits(lonlat_deg, size_m, self.config.geosot_layer)[:, None]
        if day is not None and tuple(day.shape) != (batch,):
            raise InputError(f"day must have shape {(batch,)}, found {tuple(day.shape)}")
        if wavelength_nm is not None:
            wavelength_nm = wavelength_nm.to(images.device).expand(batch, -1)[:, None]
        place = Place(gsd[:, None], bits, None if day is None else day[:, None])
        return self.embed_set(images[:, None], place, wavelength_nm)


def _attended(key_padding_mask: Tensor | None) -> Tensor | None:
    """Turn a mask of tokens that nobody may attend to into that of attention; CLS is always attended to."""
    if key_padding_mask is None:
        return None
    return torch.nn.functional.pad(~key_padding_mask, (1, 0), value=True)[:, None, None, :]


def _patch_embed(config: EncoderConfig) -> nn.Module:
    if config.bands == "groups":
        return GroupPatchEmbed(config.groups, config.embed_dim, config.patch_size)
    if config.bands == "wavelength":
        return WavelengthPatchEmbed(config.spectral_rank, config.embed_dim, config.patch_size)
    embed = RCFPatchEmbed if config.stem == "rcf" else PatchEmbed
    return embed(config.in_chans, config.embed_dim, config.patch_size)
