"""Benchmark data sets by name, read through torchgeo from where the user has them; nothing is downloaded.

torchgeo hands out tensors without units. What their numbers stand for (which bands, in which order, stored how, how
many metres apart) is known for those in `DATA_SETS` and stated by the user for any other, and checked against the
values like everything else.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.Image import DecompressionBombError

from a2mae.raster.files import unseen_numbers
from a2mae.raster.opening import named_drivers
from a2mae.sensors import BUILTIN_SENSORS, Band, Encoding, Sensor, Units
from a2mae.tasks.data_parameters import TorchgeoParameters
from a2mae.tasks.datasets.formats import FORMATS, FolderFormat
from a2mae.tasks.datasets.labelled import LabelledScene, LabelledScenes, Reading
from a2mae.tasks.datasets.listing import check_links
from a2mae.tasks.datasets.masks import Masks
from a2mae.tasks.datasets.polygons import FolderLabels
from a2mae.tasks.datasets.splits import split_of
from a2mae.tasks.datasets.task_data import CHANGE_CLASSES, IGNORE, TaskDataError, TaskSpec
from a2mae.tasks.registry import Task

_Numbers = npt.NDArray[Any]
_UNREADABLE = (
    OSError, ValueError, RuntimeError, SyntaxError, DecompressionBombError, AssertionError, LookupError, TypeError,
    EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What rasterio, torch, PIL and torchgeo's own classes raise for files that cannot be decoded or joined, or are other
than they expect: PIL of a broken PNG `SyntaxError`, torchgeo of a split that it has not `AssertionError`."""


@dataclass(frozen=True)
class Remapped:
    """How a torchgeo data set becomes task data.

    Attributes:
        task: What its labels are good for.
        layout: Bands in torchgeo's order, encoding, GSD.
        splits: torchgeo's split name → ours; None: the class takes no `split`, scenes are split by name.
        classes: Class names; empty: those of change, else the data set's own attribute `classes`.
        arguments: Further ones of the class.
        val_from_train: Some training scenes become validation: torchgeo has no validation split.
        multi_label: Labels are `(K,)` of 0 and 1.
        target: From a mask to classes, where they differ.
        resized: torchgeo resizes what it reads, so numbers have fractions and are rounded.
        reference: Where the facts stand.
    """

    task: Task
    layout: FolderFormat
    splits: Mapping[str, str] | None
    classes: tuple[str, ...] = ()
    arguments: Mapping[str, object] | None = None
    val_from_train: bool = False
    multi_label: bool = False
    target: Callable[[_Numbers], _Numbers] | None = None
    resized: bool = False
    reference: str = ""


def _rgb(gsd_m: float, title: str) -> FolderFormat:
    """Describe 8-bit pictures of an aerial or satellite camera: digital numbers, whatever made them."""
    sensor = FORMATS["rgb_bytes"].sensor
    bands = tuple(replace(band, gsd_m=gsd_m) for band in sensor.bands)
    return FolderFormat(replace(sensor, title=title, gsd_m=gsd_m, bands=bands), gsd_m)


def _sentinel2(base: str, order: tuple[str, ...], name: str) -> FolderFormat:
    """Describe Sentinel-2 before processing baseline 04.00: reflectance x 10,000 without an offset."""
    bands = BUILTIN_SENSORS[base].subset(order).bands
    return FolderFormat(Sensor(name, name, 10, bands, Encoding("uint16", 1e-4, 0.0, 0, Units.REFLECTANCE)), 10.0)


def _worldview2() -> FolderFormat:
    centers = (("coastal", 427), ("blue", 478), ("green", 546), ("yellow", 608), ("red", 659), ("rededge", 724))
    nir = (("nir", 833), ("nir09", 949))
    bands = tuple(Band(f"B{i}", name, nm, 60, 1.0) for i, (name, nm) in enumerate((*centers, *nir), start=1))
    return FolderFormat(
        Sensor("worldview-2-8bit", "WorldView-2, 8 bands", 1, bands, Encoding("uint8", 1 / 255, 0.0, 0, Units.DN)), 1.0
    )


_L1C = tuple(f"B{i:02d}" for i in range(1, 9))
_THREE = {"train": "train", "val": "val", "test": "test"}
_TWO = {"train": "train", "test": "test"}
DATA_SETS: Mapping[str, Remapped] = {
    "EuroSAT": Remapped(Task.CLASSIFY, FORMATS["eurosat_ms"], _THREE, reference="arXiv 1709.00029"),
    "RESISC45": Remapped(Task.CLASSIFY, _rgb(1.0, "Google Earth, 0.2 to 30 m"), _THREE, reference="arXiv 1703.00121"),
    "UCMerced": Remapped(
        Task.CLASSIFY, _rgb(0.3, "USGS aerial, one foot"), _THREE, resized=True, reference="10.1145/1869790.1869829"
    ),
    "BigEarthNet": Remapped(
        Task.CLASSIFY,
        _sentinel2("sentinel-2-l2a", (*_L1C, "B8A", "B09", "B11", "B12"), "sentinel-2-l2a-bigearthnet"),
        _THREE,
        arguments={"bands": "s2", "num_classes": 19},
        multi_label=True,
        reference="arXiv 1902.06148",
    ),
    "OSCD": Remapped(
        Task.DETECT_CHANGE,
        _sentinel2("sentinel-2-l1c", (*_L1C, "B8A", "B09", "B10", "B11", "B12"), "sentinel-2-l1c-oscd"),
        _TWO,
        val_from_train=True,
        reference="10.1109/IGARSS.2018.8518015",
    ),
    "LEVIRCD": Remapped(Task.DETECT_CHANGE, _rgb(0.5, "Google Earth"), _THREE, reference="10.3390/rs12101662"),
    "LEVIRCDPlus": Remapped(
        Task.DETECT_CHANGE,
        _rgb(0.5, "Google Earth"),
        _TWO,
        val_from_train=True,
        reference="arXiv 2107.09244",
    ),
    "XView2": Remapped(
        Task.DETECT_CHANGE,
        _rgb(0.5, "Maxar"),
        _TWO,
        val_from_train=True,
        target=lambda damage: (damage >= 1).astype(np.uint8),  # minor damage or worse
        reference="arXiv 1911.09296",
    ),
    "SpaceNet1": Remapped(
        Task.SEGMENT,
        _worldview2(),
        None,
        ("background", "building"),
        arguments={"split": "train", "image": "8band"},
        reference="arXiv 1807.01232",
    ),
    "LoveDA": Remapped(
        Task.SEGMENT,
        _rgb(0.3, "Google Earth"),
        {"train": "train", "val": "test"},  # its test split has no labels
        ("background", "building", "road", "water", "barren", "forest", "agriculture"),
        val_from_train=True,
        target=lambda stored: np.where(stored == 0, IGNORE, stored - 1),
        reference="arXiv 2110.08733",
    ),
}
"""Known data sets by torchgeo's class names."""


def torchgeo_data(
    name: str,
    root: Path,
    task: Task,
    *,
    chip_px: int | None,
    resize: bool = False,
    stated: TorchgeoParameters | None = None,
    layout: FolderFormat | None = None,
    class_names: Sequence[str] = (),
    labels_of: Callable[[tuple[str, ...]], FolderLabels] = FolderLabels,
) -> LabelledScenes:
    """Make a data set of torchgeo a source of task data.

    Args:
        name: torchgeo's class name.
        root: Where the user has it, laid out as torchgeo expects.
        task: What is asked for.
        chip_px: Side of a sample.
        resize: Images with one label are brought to that side.
        stated: How to read one that is not known here.
        layout: With `stated`: bands in torchgeo's order, units, GSD.
        class_names: With `stated` alone: what labels stand for, where the data set does not say.
        labels_of: With `stated`: which of its values are these classes, and which none.

    Raises:
        TaskDataError: If the name is unknown, the task another, or the data not there.
    """
    if task.kind.values or task.kind.transitions:
        learns = "values" if task.kind.values else "the class of two dates"
        raise TaskDataError(
            f"{task}.data.dataset: data sets of torchgeo are read for classes, and {task} learns {learns}; give them in"
            f" a folder ({task}.data.folder) or on the archive ({task}.data.labels)"
        )
    if stated is not None:
        assert layout is not None
        mapped = _as_stated(task, stated, layout, tuple(class_names))
    elif name in DATA_SETS and class_names:
        raise TaskDataError(f"{task}.data.class_names: the classes of {name} are known: leave it out")
    elif name in DATA_SETS:
        mapped = DATA_SETS[name]
    else:
        raise TaskDataError(
            f"{task}.data.dataset: {name!r} is not mapped; known are {', '.join(DATA_SETS)}. For another of torchgeo's,"
            f" state {task}.data.torchgeo and what its numbers stand for (docs/tasks.md)"
        )
    if mapped.task is not task:
        raise TaskDataError(f"{name} is for {mapped.task}, not for {task}")
    check_links(root)
    first = _open(name, root, mapped, next(iter(mapped.splits or {"": ""})))
    spec = TaskSpec(
        task=task,
        source=name,
        class_names=mapped.classes or (CHANGE_CLASSES if task is Task.DETECT_CHANGE else _classes(first, task)),
        colors=(),
        bands=mapped.layout.sensor.bands,
        encoding=mapped.layout.sensor.encoding,
        gsd_m=mapped.layout.gsd_m,
        notes=(f"through torchgeo, {mapped.reference}: {_split_rule(mapped)}",),
        multi_label=mapped.multi_label,
    )

    def scenes(reading: Reading) -> Iterator[LabelledScene]:
        masks = None
        if stated is not None and not stated.multi_label:
            masks = Masks(labels_of(spec.class_names), f"{task}.data", white_is_second=task is Task.DETECT_CHANGE)
        for theirs, ours in (mapped.splits or {"": ""}).items():
            found = _open(name, root, mapped, theirs)
            for label, index in sorted((f"{theirs or name}-{stem}", i) for i, stem in enumerate(_names(found))):
                reading.of += 1
                try:
                    with named_drivers(), _unpacking_inside():
                        sample = found[index]
                except _UNREADABLE as error:
                    reading.skipped.append(f"{label}: {error}")
                    continue
                yield _scene(label, _split(ours, label, mapped), sample, mapped, masks)
        if masks is not None and task.kind.per_pixel:
            masks.check_all()

    return LabelledScenes(spec, mapped.layout, scenes, chip_px=chip_px, resize=resize)


def _as_stated(task: Task, stated: TorchgeoParameters, layout: FolderFormat, class_names: tuple[str, ...]) -> Remapped:
    """Return what the user states as a mapping."""
    return Remapped(
        task=task,
        layout=layout,
        splits=dict(stated.splits) or None,
        classes=class_names,
        arguments=stated.arguments,
        val_from_train="val" not in stated.splits.values(),
        multi_label=stated.multi_label,
        reference="as stated in the parameters",
    )


def _open(name: str, root: Path, mapped: Remapped, split: str) -> Any:  # noqa: ANN401 (known by what it hands out alone)
    made = _class_named(name, mapped.task)
    from torchgeo import datasets  # noqa: PLC0415 (seconds to import, and only read here)

    accepted = inspect.signature(made).parameters
    arguments = {**(mapped.arguments or {}), **({"split": split} if split else {})}
    if strange := sorted(set(arguments) - set(accepted)):
        offered = ", ".join(sorted(set(accepted) - {"root", "transforms", "download", "checksum"}))
        raise TaskDataError(f"torchgeo's {name} takes no {', '.join(strange)}; it takes {offered or 'nothing'}")
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
    if "download" in accepted:
        arguments["download"] = False
    try:
        with named_drivers(), _unpacking_inside():
            return made(root=str(root), **arguments)
    except (datasets.DatasetNotFoundError, FileNotFoundError) as error:
        raise TaskDataError(f"{name} is not at {root} in the layout that torchgeo reads: {error}") from error
    except (*_UNREADABLE, datasets.DependencyNotFoundError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise TaskDataError(
            f"torchgeo's {name} cannot be opened at {root} with {given} ({told}): look at its splits and arguments in"
            f" {mapped.task}.data.torchgeo, and at its files"
        ) from error


def _class_named(name: str, task: Task) -> Any:  # noqa: ANN401 (a class, of which no type says what it takes)
    from torchgeo import datasets  # noqa: PLC0415 (as above)

    made: Any = getattr(datasets, name, None)
    of_samples = inspect.isclass(made) and issubclass(made, datasets.NonGeoDataset)
    if not of_samples or inspect.isabstract(made) or not {"__init__", "__new__"} & _own_names(made):
        mosaic = "; it is a mosaic: cut it to images and masks, or map it"
        raise TaskDataError(
            f"{task}.data.dataset: torchgeo has no data set of samples named {name!r}"
            f"{mosaic if made is not None and not of_samples else ''}"
        )
    sources = [inspect.getsource(sys.modules[base.__module__]) for base in made.__mro__ if _of_torchgeo(base)]
    if any("pickle" in source for source in sources):
        raise TaskDataError(
            f"{task}.data.dataset: torchgeo reads {name} by pickle, which runs what a file says: write it as images and"
            " labels"
        )
    return made


def _own_names(made: Any) -> set[str]:  # noqa: ANN401 (as above)
    """What a class of torchgeo and its bases define themselves: one without a constructor reads no data set."""
    return {name for base in made.__mro__ if _of_torchgeo(base) for name in vars(base)}


def _of_torchgeo(base: type) -> bool:
    return base.__module__.startswith("torchgeo.") and base.__module__ != "torchgeo.datasets.geo"


@contextlib.contextmanager
def _unpacking_inside() -> Iterator[None]:
    """Let archives that a data set unpacks write below their own folder alone, as Python does by itself since 3.14."""
    before = vars(tarfile.TarFile).get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        if before is None:
            del tarfile.TarFile.extraction_filter
        else:
            tarfile.TarFile.extraction_filter = before


def _classes(found: object, task: Task) -> tuple[str, ...]:
    sets = getattr(found, "class_sets", None)  # BigEarthNet has one per number of classes
    names = sets[found.num_classes] if sets else getattr(found, "classes", None)  # type: ignore[attr-defined]
    if not names:
        raise TaskDataError(
            f"torchgeo's {type(found).__name__} names no classes: state {task}.data.class_names, in the labels' order"
        )
    return tuple(map(str, names))


def _names(found: Any) -> list[str]:  # noqa: ANN401 (as `_open`)
    """Name every scene independently of the order in which a file system lists them, else by its number."""
    for attribute in ("files", "folders", "images", "image_fns", "imgs"):
        entries = getattr(found, attribute, None)
        if entries and len(entries) == len(found):
            names = [_stem(entry) for entry in entries]
            if len(set(names)) == len(names):
                return names
    return [f"{index:06d}" for index in range(len(found))]


def _stem(entry: Any) -> str:  # noqa: ANN401 (a path, a tuple with one, or a mapping of several)
    if isinstance(entry, Mapping):
        entry = next((entry[key] for key in ("region", "s2", "image1", "image") if key in entry), "")
    return Path(str(entry[0] if isinstance(entry, (tuple, list)) else entry)).stem


def _split_rule(mapped: Remapped) -> str:
    if mapped.splits is None:
        return "split by a hash of the scene's name, 70 % train, 10 % val, 20 % test"
    rule = ", ".join(f"its {theirs} is {ours}" for theirs, ours in mapped.splits.items())
    return rule + ("; a tenth of train, by name, is val" if mapped.val_from_train else "")


def _split(ours: str, label: str, mapped: Remapped) -> str | None:
    if mapped.splits is None:
        return None
    if mapped.val_from_train and ours == "train":
        return "val" if split_of(label, test_share=0.0) == "val" else "train"
    return ours


def _scene(
    label: str, split: str | None, sample: Mapping[str, Any], mapped: Remapped, masks: Masks | None
) -> LabelledScene:
    """Read torchgeo's sample: `image` `(C, H, W)` or `(T, C, H, W)`; `mask` or `label`, by `masks` where stated."""
    key = "label" if mapped.task is Task.CLASSIFY else "mask"
    if lacking := [name for name in ("image", key) if name not in sample]:
        found, wanted = ", ".join(sorted(sample)), " and ".join(map(repr, lacking))
        raise TaskDataError(f"{label}: torchgeo hands out {found}, {mapped.task} needs {wanted}")
    images, target = np.asarray(sample["image"]), np.asarray(sample[key])
    for name, array, axes in (("image", images, (3, 4)), (key, target, (0, 1, 2, 3))):
        if array.dtype.kind not in "buif" or array.ndim not in axes:
            raise TaskDataError(
                f"{label}: torchgeo's {name!r} is {array.dtype} of shape {array.shape}, expected numbers of"
                f" {' or '.join(map(str, axes))} axes"
            )
    images = np.round(images) if mapped.resized else images
    if images.ndim == 3:
        images = images[None]
    if key == "mask":
        target = target[0] if target.ndim == 3 else target
    if masks is not None:
        target = masks.numbers(label, target, np.isfinite(target))
    elif mapped.target is not None:
        target = mapped.target(target)
    encoding = mapped.layout.sensor.encoding
    unseen = unseen_numbers(images, None)
    valid = np.ones_like(images[:, 0], bool) if unseen is None else np.asarray(~unseen.any(axis=1))
    if encoding.units is not Units.DN:
        valid &= ~(images == encoding.nodata).all(axis=1)
    return LabelledScene(name=label, place=label, images=images, target=target, valid=valid, split=split)
