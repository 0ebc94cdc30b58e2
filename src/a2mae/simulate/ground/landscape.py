"""The ground of one region, sampled at any places.

Large forms (rivers, roads, forests, towns, relief) are smooth fields on a lattice, linear between its nodes; their zero
lines are the outlines, so an outline has no resolution of its own. Parcels, streets, lots and buildings are arithmetic
on coordinates, exact at any scale. Nothing is stored per pixel: a scene whose content is displaced is the same
landscape asked at displaced places.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from a2mae.simulate.ground.changes import Change, draw_changes, paint_changes
from a2mae.simulate.ground.covers import BRIGHTNESS_BITS, BRIGHTNESS_LEVELS, CODE, COVER_SHIFT, GREEN_LEVELS, Character
from a2mae.simulate.ground.land_use import Biome, Parcels, crop_cover, paint_town
from a2mae.simulate.noise import Floats, Lattice, Points, Texture, generator, smooth_field, texture

LATTICE_M = 30.0
"""Distance of the lattice's nodes, metres."""
# Beyond the region: displaced scenes, point spread and the relief's slopes look outside it, and the box of a grid of
# the neighbouring zone does so by its tilt (up to 6 degrees).
_PAD_M, _PAD_SHARE = 800.0, 0.25
_FIELDS = tuple("river river_width highway lane lake urban bare forest conifer wet fields orchard domain".split())
_STRIP_PIXELS = 100_000  # of one evaluation: its arrays stay in the processor's cache
FINE_GSD_M = 1.5
"""Sampling distance below which rows of trees and tram lines are drawn one by one."""


@dataclass(frozen=True)
class Landscape:
    """The ground of one region.

    Attributes:
        name: The region's name, which with the seed decides everything.
        biome: What kind of landscape it is.
        half_side_m: Half the side of the square that scenes cover.
        lattice: The fields of `_FIELDS`: positive inside for areas, metres from the edge (negative inside) for lines.
        elevation_m: `(n, n)` float32 on the lattice's nodes.
        parcels: The fields' geometry.
        fine, patch, crown: Textures of brightness, of green fraction, and of tree crowns.
        character: How it differs from other regions of its biome.
        changes: What happens between the periods.
    """

    name: str
    biome: Biome
    half_side_m: float
    lattice: Lattice
    elevation_m: Floats
    parcels: Parcels
    fine: Texture
    patch: Texture
    crown: Texture
    character: Character
    changes: tuple[Change, ...] = ()

    def states(self, points: Points, *, after: bool, year: int, gsd_m: float) -> NDArray[np.uint16]:
        """Compute the state of each place: cover, green level and brightness level packed into one integer.

        Args:
            points: Where.
            after: Whether the changes have happened.
            year: Calendar year, which decides the crops.
            gsd_m: Distance of the places: detail much finer than it is replaced by its mean.

        Returns:
            `(H, W)` uint16.
        """
        height, width = points.shape
        states = np.empty((height, width), dtype=np.uint16)
        step = max(1, _STRIP_PIXELS // width)
        for first in range(0, height, step):
            strip = points.rows(first, min(first + step, height))
            states[first : first + step] = self._strip(strip, after=after, year=year, gsd_m=gsd_m)
        return states

    def covers(self, points: Points, *, after: bool, year: int, gsd_m: float) -> NDArray[np.uint8]:
        """Compute the cover code of each place, `(H, W)`."""
        return (self.states(points, after=after, year=year, gsd_m=gsd_m) >> COVER_SHIFT).astype(np.uint8)

    def _strip(self, points: Points, *, after: bool, year: int, gsd_m: float) -> NDArray[np.uint16]:
        fields = dict(zip(_FIELDS, self.lattice.sample(points), strict=True))
        x, y = points.planes()
        fine, patch = self.fine.sample(points), self.patch.sample(points)
        ragged = 0.10 * patch + 0.05 * fine
        forest = fields["forest"] + ragged > 0
        bare = fields["bare"] + ragged > 0
        wet = fields["wet"] + ragged > 0
        farmed = (fields["fields"] + 0.3 * ragged > 0) & ~(forest | bare | wet)

        parcel = self.parcels.locate(x, y, fields["domain"])
        cover = np.full(points.shape, CODE[self.biome.grass], dtype=np.uint8)
        np.copyto(cover, crop_cover(self.biome, parcel, year=year), where=farmed)
        brightness = 0.5 * fine + 0.4 * patch
        green = 0.7 * patch
        # Fields, meadows and woods are worked parcel by parcel; bare and wet ground is not.
        managed = ~(bare | wet)
        tone = 0.5 * parcel.brightness
        np.add(brightness, tone, out=brightness, where=managed)
        np.add(green, 0.6 * parcel.green, out=green, where=managed)
        orchard = farmed & (fields["orchard"] > 0) & parcel.may_be_orchard
        if gsd_m <= FINE_GSD_M:
            tram = farmed & (np.abs(_within(parcel.across_m, 24.0) - 12.0) < 0.9)
            np.subtract(brightness, 0.7, out=brightness, where=tram)
            along, across = _within(parcel.along_m[orchard], 6.0), _within(parcel.across_m[orchard], 5.0)
            tree = (along - 3.0) ** 2 + (across - 2.5) ** 2 < 4.0
        else:
            tree = fine[orchard] > 0.05
        cover[orchard] = np.where(tree, CODE["orchard_tree"], CODE["orchard_floor"])
        edge = farmed & (parcel.edge_m < 2.2)
        cover[edge] = np.where(parcel.hedged[edge], CODE["hedge"], CODE["track"])

        cover[forest] = CODE["broadleaf"]
        cover[forest & (fields["conifer"] + 1.5 * ragged > 0)] = CODE["conifer"]
        cover[bare] = CODE[self.biome.bare_cover]
        cover[wet] = CODE["reed"]

        lane, highway = np.abs(fields["lane"]) < 4.0, np.abs(fields["highway"]) < 8.0
        town = fields["urban"] + 0.5 * ragged > 0
        # The middle line is what is linear between nodes: the distance from it has a kink where the river is.
        bank_m = np.abs(fields["river"]) - fields["river_width"] / 2
        lake, river = fields["lake"] + 0.2 * ragged > 0, bank_m + 2.0 * patch < 0
        angle = self.parcels.town_angle_rad
        if after:
            built = paint_changes(self.changes, points, cover, patch=patch, river_m=bank_m, town_angle_rad=angle)
            town |= built.new_town
            highway |= built.new_road
        paint_town(cover, town & ~highway, points, angle_rad=angle, fine=fine, patch=patch)
        cover[lake] = CODE["lake"]
        cover[river] = CODE["river"]
        cover[lane & ~lake & ~river] = CODE["road"]
        cover[highway] = CODE["road"]

        wooded = (cover == CODE["broadleaf"]) | (cover == CODE["conifer"])
        np.copyto(brightness, self.crown.sample(points) + 0.7 * tone, where=wooded)
        level = np.clip(np.rint(16 + 15 * brightness), 1, BRIGHTNESS_LEVELS - 1).astype(np.uint16)
        middle = (GREEN_LEVELS - 1) / 2
        level |= np.clip(np.rint(middle * (1 + green)), 0, GREEN_LEVELS - 1).astype(np.uint16) << BRIGHTNESS_BITS
        level |= cover.astype(np.uint16) << COVER_SHIFT
        return np.asarray(level)


def _within(values: Floats, period: float) -> Floats:
    """Compute the values modulo a period, quicker than `%` does."""
    return np.asarray(values - np.floor(values / np.float32(period)) * np.float32(period), dtype=np.float32)


def _line_distance(field: Floats, step_m: float) -> Floats:
    """Estimate the metres from a field's zero line by its slope: exact on the line, good near it."""
    slope = np.hypot(*np.gradient(field, step_m))
    return np.asarray(field / np.maximum(slope, 0.25 * slope.mean()), dtype=np.float32)


def _above(field: Floats, share: float, where: NDArray[np.bool_] | None = None) -> Floats:
    """Lower a field so that `share` of it (within `where`) is positive."""
    values = field if where is None or not where.any() else field[where]
    return np.asarray(field - np.quantile(values, 1.0 - min(max(share, 0.0), 1.0)), dtype=np.float32)


def make_landscape(seed: int, name: str, biome: Biome, half_side_m: float) -> Landscape:
    """Draw a region's landscape, without changes.

    Args:
        seed: The world's seed.
        name: The region's name.
        biome: Its kind.
        half_side_m: Half the side of the square that scenes cover, metres.
    """
    nodes = 2 * int(np.ceil((half_side_m * (1 + _PAD_SHARE) + _PAD_M) / LATTICE_M)) + 1

    def field(key: str, wavelength_m: float, roughness: float = 0.0) -> Floats:
        return smooth_field(generator(seed, name, key), nodes, wavelength_m / LATTICE_M, roughness=roughness)

    river_line = _line_distance(field("river", 4500, 0.02), LATTICE_M)
    width = np.maximum(biome.river_width_m * (1 + 0.35 * field("river width", 1200)), 14)
    river = np.abs(river_line) - width / 2
    near_river = np.exp(-np.maximum(river, 0) / 350)
    elevation = field("elevation", 3200, 0.15) * (1 - 0.7 * near_river) - 0.8 * near_river
    height = elevation * biome.relief_m
    slope = np.hypot(*np.gradient(height, LATTICE_M))

    lake = _above(field("lake", 900, 0.05) - 0.3 * elevation, biome.lake)
    highway = _line_distance(field("highway", 6500), LATTICE_M)
    lane = _line_distance(field("lane", 2600), LATTICE_M)
    access = np.exp(-np.abs(highway) / 500) + 0.5 * np.exp(-np.abs(lane) / 250)
    urban = _above(field("urban", 1500, 0.05) + 1.2 * access - 6 * slope - 0.3 * near_river, biome.urban)
    urban = np.minimum(urban, river / 60)  # no houses on the bank
    land = (river > 0) & (lake < 0) & (urban < 0)
    # Rock crops out high up and on slopes; sand lies along rivers.
    exposed = 2.0 * near_river if biome.bare_cover == "sand" else 0.7 * elevation + 2 * slope
    bare = _above(field("bare", 800, 0.2) + exposed, biome.bare, land)
    bare = np.minimum(bare, -urban * 5)
    forest_wish = field("forest", 1300, 0.15) + 0.5 * elevation + 3 * slope
    forest = np.minimum(_above(forest_wish, biome.forest, land & (bare < 0)), -urban * 4)
    conifer = _above(field("conifer", 1100, 0.1) + 0.6 * elevation, biome.conifer, forest > 0)
    banks = np.exp(-np.maximum(river, 0) / 180) + 0.8 * np.exp(np.minimum(lake, 0) * 4)
    wet = np.minimum(_above(field("wet", 700, 0.1) + 3 * banks, 0.12 * biome.wetland), -urban * 4)
    fields = _above(field("fields", 2000, 0.05) - 4 * slope, biome.fields, land & (forest < 0) & (bare < 0))
    orchard = _above(field("orchard", 1500), biome.orchard, fields > 0)
    areas = (lake, urban, bare, forest, conifer, wet, fields, orchard, field("domain", 2200))
    stack = np.stack([river_line, width, highway, lane, *areas]).astype(np.float32)  # as in _FIELDS
    return Landscape(
        name=name,
        biome=biome,
        half_side_m=half_side_m,
        lattice=Lattice(stack, LATTICE_M),
        elevation_m=height.astype(np.float32),
        parcels=Parcels.draw(generator(seed, name, "parcels"), biome.parcel_m),
        fine=texture(generator(seed, name, "fine"), wavelength_m=5, cell_m=1.0),
        patch=texture(generator(seed, name, "patch"), wavelength_m=45, cell_m=4.0),
        crown=texture(generator(seed, name, "crown"), wavelength_m=9, cell_m=1.0),
        character=Character.draw(generator(seed, name, "character")),
    )


def with_changes(landscape: Landscape, seed: int, *, share: float) -> Landscape:
    """Return the landscape with about `share` of its ground changed between the periods."""
    if share <= 0:
        return landscape
    lattice = landscape.lattice
    axis = lattice.axis_m
    cover = landscape.covers(Points(axis, axis), after=False, year=2000, gsd_m=lattice.step_m)
    changes = draw_changes(
        generator(seed, landscape.name, "changes"),
        cover,
        np.abs(lattice.fields[_FIELDS.index("river")]) - lattice.fields[_FIELDS.index("river_width")] / 2,
        axis_m=axis,
        half_side_m=landscape.half_side_m,
        share=share,
        town_angle_rad=landscape.parcels.town_angle_rad,
    )
    return dataclasses.replace(landscape, changes=changes)
