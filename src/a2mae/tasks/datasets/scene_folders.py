"""The user's own pixel truth: images with masks or GeoJSON polygons, and dates before and after with a change mask."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import bounds, rasterize
from rasterio.transform import array_bounds
from rasterio.warp import transform, transform_bounds, transform_geom

from a2mae.sensors import Units
from a2mae.tasks.datasets.formats import IMAGE_SUFFIXES, FolderFormat, check_integers
from a2mae.tasks.datasets.labelled import LabelledScene, LabelledScenes, Reading
from a2mae.tasks.datasets.splits import BLOCK_DEG, Grounds, square_of
from a2mae.tasks.datasets.task_data import IGNORE, SPLITS, Task, TaskDataError, TaskSpec

CHANGE_COLORS = ((235, 235, 235), (214, 39, 40))


@dataclass(frozen=True)
class FolderLabels:
    """What the labels of a folder are.

    Attributes:
        class_names: One per class; a mask's value is the position.
        class_property: Of a GeoJSON feature: its class name. Where no polygon lies, the class is the first.
    """

    class_names: tuple[str, ...]
    class_property: str = "class"


@dataclass(frozen=True)
class Picture:
    """A file as read: stored numbers `(C, H, W)`, where they are valid, and where it lies (None: nowhere)."""

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    crs: CRS | None
    transform: Affine


def mask_folder(folder: Path, layout: FolderFormat, labels: FolderLabels, *, chip_px: int | None) -> LabelledScenes:
    """`images/` with `masks/` (rasters of class numbers) or `labels/` (GeoJSON polygons) of the same names.

    The three may lie in `train/`, `val/` and `test/`; else scenes are split by place where they are georeferenced, by
    name where they are not.

    Raises:
        TaskDataError: If folders are absent, or an image has no label or a label no image; all are named.
    """
    spec = folder_spec(Task.SEGMENT, folder, layout, labels.class_names, ())

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        for split, root in _roots(folder, "images"):
            for name, image, truth in _with_labels(root):
                reading.of += 1
                try:
                    picture = read_picture(image, layout)
                    polygons = truth.suffix.lower() not in IMAGE_SUFFIXES
                    target = (
                        burnt(truth, picture, labels) if polygons else _mask(truth, picture, image, labels.class_names)
                    )
                except (RasterioError, OSError, json.JSONDecodeError) as error:
                    reading.skipped.append(f"{image.relative_to(folder)}: {error}")
                    continue
                yield scene_of(name, split, [picture], target, reading.grounds)

    for _, root in _roots(folder, "images"):  # a missing label is told before hours of reading
        _with_labels(root)
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def pair_folder(folder: Path, layout: FolderFormat, *, chip_px: int | None) -> LabelledScenes:
    """`A/` (before), `B/` (after) and `label/` (0 unchanged; 1 or 255 changed) with the same names, as in LEVIR-CD.

    Raises:
        TaskDataError: If folders are absent, or a date or label is missing; all are named.
    """
    spec = folder_spec(Task.DETECT_CHANGE, folder, layout, ("unchanged", "changed"), CHANGE_COLORS)

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        for split, root in _roots(folder, "A"):
            kinds = [(name, IMAGE_SUFFIXES) for name in ("A", "B", "label")]
            for name, before, after, truth in _matched(root, *kinds):
                reading.of += 1
                try:
                    first, second = read_picture(before, layout), read_picture(after, layout)
                    _same_grid(first, second, before, after)
                    target = _mask(truth, first, before, ("unchanged",))
                except (RasterioError, OSError) as error:
                    reading.skipped.append(f"{before.relative_to(folder)}: {error}")
                    continue
                values = np.unique(target)
                if set(values.tolist()) <= {0, 255}:  # a picture of black and white; 255 is "ignored" nowhere else
                    target = (target == 255).astype(np.uint8)
                yield scene_of(name, split, [first, second], target, reading.grounds)

    for _, root in _roots(folder, "A"):  # a missing date is told before hours of reading
        _matched(root, *[(name, IMAGE_SUFFIXES) for name in ("A", "B", "label")])
    return LabelledScenes(spec, layout, scenes, chip_px=chip_px)


def _with_labels(root: Path) -> list[tuple[Any, ...]]:
    """`(name, image, label)` of a folder; its labels are polygons where there are no masks."""
    labels = ("masks", IMAGE_SUFFIXES) if (root / "masks").is_dir() else ("labels", (".geojson", ".json"))
    return _matched(root, ("images", IMAGE_SUFFIXES), labels)


def folder_spec(
    task: Task,
    folder: Path,
    layout: FolderFormat,
    names: tuple[str, ...],
    colors: tuple[tuple[int, int, int], ...],
) -> TaskSpec:
    """What the samples of a folder of one's own are."""
    return TaskSpec(
        task=task,
        source=folder.name,
        class_names=names,
        colors=colors,
        bands=layout.sensor.bands,
        encoding=layout.sensor.encoding,
        gsd_m=layout.gsd_m,
        notes=(f"split by place ({BLOCK_DEG:g} degrees) where georeferenced, else by name, unless the folders say",),
    )


def _roots(folder: Path, inner: str) -> list[tuple[str | None, Path]]:
    """The folders that hold `inner`, with their split."""
    if (folder / inner).is_dir():
        return [(None, folder)]
    found: list[tuple[str | None, Path]] = [(split, folder / split) for split in SPLITS if (folder / split).is_dir()]
    found = [(split, root) for split, root in found if (root / inner).is_dir()]
    if not found:
        raise TaskDataError(f"{folder} holds neither {inner}/ nor {', '.join(f'{s}/{inner}/' for s in SPLITS)}")
    return found


def _matched(root: Path, *kinds: tuple[str, Sequence[str]]) -> list[tuple[Any, ...]]:
    """`(name, file of each kind)`; every name must be in every kind."""
    files: list[dict[str, Path]] = []
    for kind, suffixes in kinds:
        if not (root / kind).is_dir():
            raise TaskDataError(f"{root} has no folder {kind}/ beside {kinds[0][0]}/")
        files.append({p.stem: p for p in sorted((root / kind).iterdir()) if p.suffix.lower() in suffixes})
    everyone = set().union(*files)
    lacking = [
        f"{name} ({', '.join(kind for (kind, _), found in zip(kinds, files, strict=True) if name not in found)})"
        for name in sorted(everyone)
        if any(name not in found for found in files)
    ]
    if lacking or not everyone:
        raise TaskDataError(
            f"{root}: {len(lacking)} of {len(everyone)} names are not in every folder"
            f" ({', '.join(kind for kind, _ in kinds)}); missing: {', '.join(lacking[:5])}"
            f"{' …' if len(lacking) > 5 else ''}"
        )
    return [(name, *(found[name] for found in files)) for name in sorted(everyone)]


def read_picture(path: Path, layout: FolderFormat) -> Picture:
    """Stored numbers of a file; floats are taken as physical values and NaN as nodata.

    Raises:
        TaskDataError: If integers are of another type than stated; with the range seen.
    """
    encoding = layout.sensor.encoding
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pictures without a place are welcome
        with rasterio.open(path) as source:
            pixels, nodata = source.read(), source.nodata
            crs, affine = source.crs, source.transform
    valid = np.isfinite(pixels).all(axis=0)
    if nodata is None and encoding.units is not Units.DN:
        nodata = encoding.nodata if pixels.dtype.kind != "f" else None
    if nodata is not None and not math.isnan(nodata):
        valid &= ~(pixels == nodata).all(axis=0)
    if pixels.dtype.kind == "f":
        pixels = np.round((np.where(valid, pixels, encoding.offset) - encoding.offset) / encoding.scale)
    else:
        usable = pixels[:, valid]
        check_integers(path, usable if usable.size else pixels, layout)
    return Picture(pixels, valid, crs, affine)


def _mask(path: Path, picture: Picture, image: Path, classes: Sequence[str]) -> npt.NDArray[Any]:
    """Class numbers of a mask on its image's grid; its own nodata is ignored.

    Raises:
        TaskDataError: If it has several bands, lies elsewhere than its image, or calls one of the classes nodata.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            if source.count != 1:
                raise TaskDataError(f"{path}: {source.count} bands; a mask has one band of class numbers")
            found = Picture(source.read(), np.ones(source.shape, bool), source.crs, source.transform)
            nodata = source.nodata
    _same_grid(picture, found, image, path)
    if nodata is not None and nodata in range(len(classes)):
        raise TaskDataError(
            f"{path} says nodata {nodata:g}, which is class {classes[int(nodata)]!r}: its pixels would be in neither"
            f" training nor score. Write the mask with nodata {IGNORE} or none: a scene's profile brings its own"
        )
    target = found.pixels[0].astype(np.int64)
    return target if nodata is None else np.where(found.pixels[0] == nodata, IGNORE, target)


def _same_grid(first: Picture, second: Picture, path: Path, other: Path) -> None:
    """Refuse two files that are not pixel on pixel; one without a place is held against its size alone."""
    if first.valid.shape != second.valid.shape:
        (h, w), (rows, columns) = first.valid.shape, second.valid.shape
        raise TaskDataError(f"{other}: {rows} x {columns} pixels, but {path.name} of it has {h} x {w}")
    if first.crs is None or second.crs is None:
        return
    if first.crs != second.crs:
        raise TaskDataError(f"{other} is in {second.crs}, {path} in {first.crs}: bring them onto one grid")
    if not first.transform.almost_equals(second.transform, precision=abs(first.transform.a) / 100):
        raise TaskDataError(
            f"{other} starts at {second.transform.c:g}, {second.transform.f:g} with pixels of {second.transform.a:g},"
            f" {path} at {first.transform.c:g}, {first.transform.f:g} with {first.transform.a:g}: bring them onto one"
            " grid"
        )


def burnt(path: Path, picture: Picture, labels: FolderLabels) -> npt.NDArray[np.uint8]:
    """Polygons of a GeoJSON file as class numbers on an image's grid; later features lie on earlier ones.

    Raises:
        TaskDataError: If the image has no CRS, or a feature no class, or one that was not stated.
    """
    if picture.crs is None:
        raise TaskDataError(f"{path}: its image has no CRS, so polygons cannot be laid on it")
    document = json.loads(path.read_text(encoding="utf-8"))
    named = document.get("crs", {}).get("properties", {}).get("name")  # GeoJSON before RFC 7946 could say
    source = CRS.from_user_input(named) if named else CRS.from_epsg(4326)
    shapes = []
    for number, feature in enumerate(document.get("features", [])):
        properties = feature.get("properties") or {}
        if labels.class_property not in properties:
            raise TaskDataError(
                f"{path}: feature {number} has no property {labels.class_property!r}, but"
                f" {', '.join(sorted(properties)) or 'none'}; set segment.data.class_property to the one that names the"
                " class"
            )
        name = properties[labels.class_property]
        if str(name) not in labels.class_names:
            raise TaskDataError(
                f"{path}: feature {number} has {labels.class_property} {name!r}; classes are"
                f" {', '.join(labels.class_names)}"
            )
        value = labels.class_names.index(str(name))
        if source.is_geographic:
            _check_degrees(path, number, feature["geometry"])
        shapes.append((transform_geom(source, picture.crs, feature["geometry"]), value))
    out = np.zeros(picture.valid.shape, np.uint8)
    if shapes:
        rasterize(shapes, out=out, transform=picture.transform)
    return out


def _check_degrees(path: Path, number: int, geometry: Any) -> None:  # noqa: ANN401 (GeoJSON)
    west, south, east, north = bounds(geometry)
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise TaskDataError(
            f"{path}: feature {number} lies at {west:g}, {south:g}, which are no degrees. GeoJSON holds longitude and"
            " latitude (WGS 84): export it so, or state its 'crs'"
        )


def scene_of(
    name: str, split: str | None, pictures: Sequence[Picture], target: npt.NDArray[Any], grounds: Grounds
) -> LabelledScene:
    """A scene of one date or two.

    Without a split of its own its place is its square of `BLOCK_DEG`, or its name. With one, its place is the first
    scene on its ground: two dates of a field are one place, two fields of a village are two.

    Args:
        name: Unique in its split.
        split: As the folder or the table says; None: to be decided by the place.
        pictures: One per date, on one grid.
        target: As `LabelledScene` has it.
        grounds: Of the scenes before.
    """
    first = pictures[0]
    lon = lat = math.nan
    own = place = name if split is None else f"{split}/{name}"
    if first.crs is not None:
        height, width = first.valid.shape
        x, y = first.transform @ (width / 2, height / 2)
        (lon,), (lat,) = transform(first.crs, "EPSG:4326", [x], [y])
        if split is None:
            place = square_of(lon, lat)
        else:
            box = transform_bounds(first.crs, "EPSG:4326", *array_bounds(height, width, first.transform))
            place = grounds.place(name, split, box)
    return LabelledScene(
        name=own,
        place=place,
        images=_stacked(pictures, name),
        target=target,
        valid=np.stack([picture.valid for picture in pictures]),
        split=split,
        lon=float(lon),
        lat=float(lat),
    )


def _stacked(pictures: Sequence[Picture], name: str) -> npt.NDArray[Any]:
    counts = sorted({len(picture.pixels) for picture in pictures})
    if len(counts) > 1:
        raise TaskDataError(f"{name}: its dates have {' and '.join(map(str, counts))} bands; both need the same ones")
    return np.stack([picture.pixels for picture in pictures])
