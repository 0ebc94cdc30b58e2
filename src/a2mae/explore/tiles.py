"""Cut pictures into tiles that a map page draws without a server: WebMercator, 512 pixels, a folder per layer.

A tile of zoom z is `z/x/y` of a world of 512 · 2^z pixels, numbered as everybody's web maps are. Tiles in which nothing
was seen are not written; the page is told which there are, so it asks for no other.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

Bytes = npt.NDArray[np.uint8]
Bounds = tuple[float, float, float, float]
Key = tuple[int, int, int]
"""Zoom, column, row."""

TILE_PX = 512
NOTHING = 255
"""Code of what was not seen."""
_WORLD_M = 2 * math.pi * 6_378_137.0
_MERCATOR = CRS.from_epsg(3857)
_WEBP_QUALITY = 80
_COARSEST_TILES = 4
"""The page makes these smaller itself."""
_HELD = 16
"""Pictures that are kept for the neighbouring tiles."""


@dataclass(frozen=True)
class GroundPicture:
    """Pixels that lie somewhere.

    Attributes:
        pixels: Reads them, `(C, H, W)` uint8; the last band says what was seen: 255, else 0. Of codes, the first band
            says it: `NOTHING` was not seen.
        shape: `(H, W)`.
        transform: Pixels to coordinates.
        crs: "EPSG:…" or WKT.
    """

    pixels: Callable[[], Bytes]
    shape: tuple[int, int]
    transform: Affine
    crs: str

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in metres of WebMercator."""
        rows, columns = self.shape
        x, y = zip(*(self.transform @ corner for corner in ((0, 0), (columns, rows))), strict=True)
        found: Bounds = transform_bounds(
            CRS.from_user_input(self.crs), _MERCATOR, min(x), min(y), max(x), max(y), densify_pts=21
        )
        return found


@dataclass
class Pyramid:
    """The tiles of a layer, as the page is told of them.

    Attributes:
        finest: Zoom of the finest tiles.
        coarsest: Zoom of the coarsest.
        bounds: Of what was drawn: south, west, north, east in degrees.
        tiles: Those that are there.
    """

    finest: int
    coarsest: int
    bounds: Bounds
    tiles: list[Key] = field(default_factory=list)

    def told(self) -> dict[str, object]:
        """Give the page what it needs to know."""
        keys = " ".join(f"{z}/{x}/{y}" for z, x, y in sorted(self.tiles))
        return {"finest": self.finest, "coarsest": self.coarsest, "bounds": list(self.bounds), "tiles": keys}


Draw = Callable[[Bytes], Mapping[str, bytes]]
"""Turns a tile's bands into files: their name, with `{}` for the tile, and content."""


def cut_tiles(
    pictures: Sequence[GroundPicture], folder: Path, draw: Draw, *, gsd_m: float, codes: bool, most: int
) -> Pyramid:
    """Write the tiles of a layer.

    Args:
        pictures: What it shows; where two overlap, the later one.
        folder: Where.
        draw: Gives the files of a tile.
        gsd_m: Of the pictures, metres on the ground: the finest tiles have about this.
        codes: Pixels are codes that must not be averaged.
        most: Finest tiles at most; more are made coarser.

    Returns:
        What was written.
    """
    boxes = [picture.bounds for picture in pictures]
    sides = list(zip(*boxes, strict=True))
    west, south, east, north = min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3])
    degrees = transform_bounds(_MERCATOR, "EPSG:4326", west, south, east, north)
    zoom = _zoom(gsd_m, (degrees[1] + degrees[3]) / 2, codes)
    while zoom > 0 and len(_touched(boxes, zoom)) > most:
        zoom -= 1
    coarsest = zoom
    while coarsest > 0 and len(_touched(boxes, coarsest)) > _COARSEST_TILES:
        coarsest -= 1
    found = Pyramid(zoom, coarsest, (degrees[1], degrees[0], degrees[3], degrees[2]))
    cutter = _Cutter(pictures, boxes, _touched(boxes, zoom), zoom, codes)
    with rasterio.Env():  # one, not one per warp
        for key in sorted(_touched(boxes, coarsest)):
            cutter.bands(key, lambda key, bands: _write(folder, draw(bands), key, found))
    return found


def _write(folder: Path, files: Mapping[str, bytes], key: Key, found: Pyramid) -> None:
    for name, data in files.items():
        path = folder / name.format("/".join(map(str, key)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found.tiles.append(key)


class _Cutter:
    """Draws tiles from the finest to the coarsest, four into one, holding a column of them."""

    def __init__(
        self,
        pictures: Sequence[GroundPicture],
        boxes: Sequence[Bounds],
        finest: Mapping[Key, list[int]],
        zoom: int,
        codes: bool,
    ) -> None:
        self._pictures, self._boxes, self._finest, self._zoom, self._codes = pictures, boxes, finest, zoom, codes
        self._parents = {(z, x >> (zoom - z), y >> (zoom - z)) for _, x, y in finest for z in range(zoom + 1)}
        self._read: dict[int, Bytes] = {}

    def bands(self, key: Key, done: Callable[[Key, Bytes], None]) -> Bytes | None:
        """Make a tile and those below it; None where nothing was seen."""
        z, x, y = key
        if key not in self._parents:
            return None
        if z == self._zoom:
            found = self._warped(key)
        else:
            quarters = [[self.bands((z + 1, 2 * x + right, 2 * y + down), done) for right in (0, 1)] for down in (0, 1)]
            known = next((quarter for row in quarters for quarter in row if quarter is not None), None)
            if known is None:
                return None
            empty = _empty(len(known), self._codes)
            rows = [np.concatenate([empty if q is None else q for q in row], axis=2) for row in quarters]
            found = self._halved(np.concatenate(rows, axis=1))
        if not _seen(found, self._codes).any():
            return None
        done(key, found)
        return found

    def _halved(self, bands: Bytes) -> Bytes:
        if self._codes:
            return bands[:, ::2, ::2]
        # What was not seen is 0 in every band, so it adds nothing.
        four = [bands[:, down::2, right::2] for down in (0, 1) for right in (0, 1)]
        total = four[0].astype(np.uint16)
        for part in four[1:]:
            total += part
        count = total[-1:] // 255
        if (count == 4).all():
            return (total >> 2).astype(np.uint8)
        return (total // np.maximum(count, 1)).astype(np.uint8)

    def _warped(self, key: Key) -> Bytes:
        west, _, east, north = _tile_bounds(key)
        pixel = (east - west) / TILE_PX
        tile: Bytes | None = None
        for number in self._finest[key]:
            box, picture = self._boxes[number], self._pictures[number]
            left, top = (max(math.floor(v), 0) for v in ((box[0] - west) / pixel, (north - box[3]) / pixel))
            right, bottom = (min(math.ceil(v), TILE_PX) for v in ((box[2] - west) / pixel, (north - box[1]) / pixel))
            if right <= left or bottom <= top:
                continue
            source = self._pixels(number)
            part = _empty(len(source), self._codes, (bottom - top, right - left))
            reproject(
                source,
                part,
                src_transform=picture.transform,
                src_crs=CRS.from_user_input(picture.crs),
                dst_transform=Affine(pixel, 0, west + left * pixel, 0, -pixel, north - top * pixel),
                dst_crs=_MERCATOR,
                resampling=Resampling.nearest if self._codes else Resampling.bilinear,
                src_nodata=NOTHING if self._codes else None,
                dst_nodata=NOTHING if self._codes else None,
                init_dest_nodata=True,
            )
            seen = _seen(part, self._codes)
            if not self._codes:  # what was not seen is 0 and has made its neighbours darker
                share = np.maximum(part[-1], 1).astype(np.float32) / 255
                part[:-1] = np.minimum(part[:-1] / share, 255).round()
                part[-1] = 255 * seen
            tile = _empty(len(source), self._codes) if tile is None else tile
            place = tile[:, top:bottom, left:right]
            np.copyto(place, part, where=seen[None])
        return _empty(1, self._codes) if tile is None else tile

    def _pixels(self, number: int) -> Bytes:
        """Read a picture; the neighbouring tiles want the same ones."""
        if number not in self._read:
            if len(self._read) >= _HELD:
                self._read.pop(next(iter(self._read)))
            pixels = self._pictures[number].pixels()
            self._read[number] = pixels if self._codes else pixels * (pixels[-1:] > 0)
        return self._read[number]


def _seen(bands: Bytes, codes: bool) -> npt.NDArray[np.bool_]:
    return np.asarray(bands[0] != NOTHING if codes else bands[-1] >= 128)


def _empty(bands: int, codes: bool, shape: tuple[int, int] = (TILE_PX, TILE_PX)) -> Bytes:
    return np.full((bands, *shape), NOTHING if codes else 0, np.uint8)


def _zoom(gsd_m: float, lat: float, codes: bool) -> int:
    """Choose the zoom whose pixels are nearest to a GSD; of codes, which cannot be blended, one that loses none."""
    exact = math.log2(_WORLD_M * math.cos(math.radians(lat)) / (TILE_PX * gsd_m))
    return max(0, math.ceil(exact) if codes else round(exact + 0.1))


def _tile_bounds(key: Key) -> Bounds:
    zoom, x, y = key
    side = _WORLD_M / 2**zoom
    west, north = x * side - _WORLD_M / 2, _WORLD_M / 2 - y * side
    return west, north - side, west + side, north


def _touched(boxes: Sequence[Bounds], zoom: int) -> dict[Key, list[int]]:
    """Name the pictures that each tile of a zoom shows."""
    side, most = _WORLD_M / 2**zoom, 2**zoom - 1
    found: dict[Key, list[int]] = {}
    for number, (west, south, east, north) in enumerate(boxes):
        x0, x1 = (min(max(math.floor((x + _WORLD_M / 2) / side), 0), most) for x in (west, east))
        y0, y1 = (min(max(math.floor((_WORLD_M / 2 - y) / side), 0), most) for y in (north, south))
        for x, y in ((x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)):
            found.setdefault((zoom, x, y), []).append(number)
    return found


def webp(rgb: Bytes, seen: Bytes, *, exact: bool = False) -> bytes:
    """Encode a picture.

    Args:
        rgb: `(3, H, W)`.
        seen: `(H, W)`: 255, else 0.
        exact: Lossless.
    """
    bands = rgb if seen.all() else np.concatenate([rgb * (seen > 0), seen[None]])
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(bands.transpose(1, 2, 0)))
    picture.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=0, lossless=exact)
    return buffer.getvalue()


def palette_png(codes: Bytes, colours: Mapping[int, tuple[int, int, int]]) -> bytes:
    """Encode codes `(H, W)` in their colours; `NOTHING` and codes without a colour are transparent."""
    picture = Image.fromarray(np.ascontiguousarray(codes))
    table = np.zeros((256, 3), np.uint8)
    alpha = bytearray(256)
    for code, colour in colours.items():
        table[code], alpha[code] = colour, 255
    picture.putpalette(table.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=bytes(alpha), compress_level=6)
    return buffer.getvalue()


def values_script(name: str, bands: Bytes) -> bytes:
    """Encode the numbers of a tile `(C, H, W)` as a script: a page that was opened from a folder may load no other."""
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(bands).tobytes(), 6)).decode("ascii")
    return f'mapValues("{name}","{packed}")\n'.encode()
