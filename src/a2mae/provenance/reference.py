"""What `make verify` compares outputs with where their bytes are others: values of the run that made `dvc.lock`.

The lock holds hashes, which say nothing of how far two runs are apart. Beside it lies `dvc.reference.json`: of every
column of every table, band of every raster, array and tensor a sketch (`sketch.py`), of every score its value and its
interval. Another machine that rounds otherwise is then told from one that computes something else.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import zarr
from rasterio.errors import NotGeoreferencedWarning
from safetensors.numpy import load_file

from a2mae.files import json_text, write_bytes
from a2mae.provenance.record import LineageError
from a2mae.provenance.sketch import Sketch, Values, sketch_of_json

REFERENCE_FILE = "dvc.reference.json"
MOST_BYTES = 200_000
_VERSION = 1
_SCORES = ("value", "low", "high")
_RECORDS = "data/lineage/"
_SCORES_OUTSIDE = 0.05  # share of the scores that may leave their 95 % interval, by no more than its width
_DERIVED_SIZE = 0.25  # pages and texts are made of what is compared: of them, presence and size


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may be from the reference.

    Attributes:
        relative: Of the numbers that differ, root mean square of the change over that of the column.
        overall: The same over all numbers of the column.
        labels: Share of names that differ.
        classes: Share of the pixels of a class map that differ.
        times: How many times as many values, and as large ones by their root mean square, or as few and small.
    """

    relative: float
    overall: float
    labels: float
    classes: float
    times: float


MEASURED = Tolerance(relative=0.02, overall=0.01, labels=0.0, classes=0.0, times=1.0)
"""Of what is read, registered, cut and tagged."""
LEARNT = Tolerance(relative=math.inf, overall=math.inf, labels=1.0, classes=0.5, times=2.0)
"""Of what a model was trained to, and of all that follows from it.

Rounding grows with every step of a training, and a CPU without bfloat16 rounds otherwise from the first: what another
machine trains is another training of the same recipe. Its scores say whether it is as good; values have to be as many
and as large, maps mostly the same, and which images a search finds is told alone.
"""


def tolerance_of(output: str) -> Tolerance:
    """Return the tolerance of an output by its place: of a model are `data/06_models` to `data/08_reporting`."""
    layer = Path(output).parts[1:2]
    return LEARNT if layer and layer[0][:2] in ("06", "07", "08") else MEASURED


@dataclass(frozen=True)
class Compared:
    """An output whose bytes are not the lock's.

    Attributes:
        within: Whether it is within its tolerance.
        told: The largest difference that was found, or what makes it another.
    """

    within: bool
    told: str


def reference_of(root: Path, outputs: Sequence[str]) -> dict[str, object]:
    """Compute the reference values of outputs.

    Args:
        root: The project's folder.
        outputs: Paths below it, as the lock lists them.

    Raises:
        LineageError: If an output cannot be read.
    """
    return {output: _described(root / output, output) for output in sorted(outputs)}


def write_reference(target: Path, root: Path, outputs: Sequence[str]) -> None:
    """Write the reference values of outputs into a file.

    Args:
        target: The file.
        root: The project's folder with the outputs.
        outputs: Paths below it.

    Raises:
        LineageError: If an output cannot be read, or the file would be larger than `MOST_BYTES`.
    """
    content = {"version": _VERSION, "outputs": reference_of(root, outputs)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).replace('},"data/', '},\n"data/')
    if len(text) > MOST_BYTES:
        raise LineageError(
            f"{REFERENCE_FILE} would have {len(text):,} bytes, and git is to hold {MOST_BYTES:,} at most: name fewer"
            " outputs in dvc.yaml, or let tables have fewer columns"
        )
    json.loads(text)
    write_bytes(target, text.encode() + b"\n")


def read_reference(text: str) -> Mapping[str, Any]:
    """Return the reference values by output.

    Raises:
        LineageError: If the text is not of this version.
    """
    try:
        content = json.loads(text)
        if content["version"] != _VERSION:
            raise LineageError(f"{REFERENCE_FILE} is of version {content['version']}, and this code reads {_VERSION}")
        found: Mapping[str, Any] = content["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise LineageError(f"{REFERENCE_FILE} cannot be read ({error!r}): `make dvc-lock` writes it") from error
    return found


def compare(root: Path, output: str, reference: Mapping[str, Any]) -> Compared:
    """Compare an output with its reference values.

    Args:
        root: The project's folder.
        output: Path below it; it is there.
        reference: Of this output, from `read_reference`.
    """
    try:
        found = _described(root / output, output)
    except LineageError as error:
        return Compared(False, str(error))
    limits = tolerance_of(output)
    if limits is LEARNT:
        found, reference = _pooled(found), _pooled(reference)
    problems, largest = [], (0.0, "")
    for part in sorted(reference.keys() | found.keys()):
        if part not in found or part not in reference:
            problems.append(f"{part} is {'missing' if part not in found else 'new'}")
            continue
        share, told = _apart(part, found[part], reference[part], limits)
        if share > 1:
            problems.append(told)
        elif share > largest[0]:
            largest = share, told
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        return Compared(False, "; ".join(problems[:3]) + more)
    return Compared(True, largest[1] or "equal values in other bytes")


def _apart(part: str, found: Any, known: Any, limits: Tolerance) -> tuple[float, str]:  # noqa: ANN401 (JSON)
    """How much of the tolerance a part takes, more than 1 for one that is another; and that in words."""
    if part == "scores":
        return _scores_apart(found, known)
    if part == "size":
        change = abs(found - known) / max(known, 1)
        return change / _DERIVED_SIZE, f"{found:,} bytes, {known:,} were expected (a page or text: by size alone)"
    ours, theirs = sketch_of_json(found), sketch_of_json(known)
    counts = (ours.count, ours.missing), (theirs.count, theirs.missing)
    if counts[0] != counts[1] or (ours.squares is None) != (theirs.squares is None):
        told = (
            f"{part}: {ours.count:,} values, {ours.missing:,} of them missing;"
            f" {theirs.count:,} and {theirs.missing:,} were expected"
        )
        if (ours.squares is None) != (theirs.squares is None):
            return 2.0, told
        return _times_apart(ours.known, theirs.known, limits), told
    apart = ours.difference(theirs)
    some = f"about {min(max(apart.differing, 1), apart.count):,.0f} of {apart.count:,}" if apart.differing else "none"
    if theirs.squares is None:
        may = limits.classes if part.endswith("band") else limits.labels
        used = 0.0 if not apart.differing else apart.share / may if may else 2.0
        return used, f"{part}: {some} differ ({f'{may:.0%} may' if may < 1 else 'told, not judged'})"
    told = (
        f"{part}: {some} differ, by {apart.size:.3g} (root mean square; values are {apart.scale:.3g}), that is"
        f" {apart.overall:.2%} of all"
    )
    if limits.times == 1:
        used = max(apart.relative / limits.relative, apart.overall / limits.overall)
        return used, f"{told} ({limits.overall:.1%} may)"
    return _times_apart(ours.scale, theirs.scale, limits), (
        f"{told}; they are {ours.scale:.3g} now (up to {limits.times:g} times as large or small may be)"
    )


def _pooled(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Put the bands of a raster together: a feature of an embedding says nothing by itself."""
    pooled: dict[str, Any] = {}
    for part, content in parts.items():
        name = re.sub(r"(^|\s)band \d+$", r"\1band", part)
        bands = sketch_of_json(content) + sketch_of_json(pooled[name]) if name in pooled else None
        pooled[name] = content if bands is None else bands.to_json()
    return pooled


def _times_apart(ours: float, theirs: float, limits: Tolerance) -> float:
    """How much of `limits.times` lies between two sizes; more than 1 where that is too much."""
    if ours == theirs:
        return 0.0
    if limits.times == 1 or not ours or not theirs:
        return 2.0
    return abs(math.log(ours / theirs)) / math.log(limits.times)


def _scores_apart(found: Mapping[str, Sequence[float]], known: Mapping[str, Sequence[float]]) -> tuple[float, str]:
    gone = sorted(found.keys() ^ known.keys())
    if gone:
        return 2.0, f"scores: {gone[0]!r} is {'new' if gone[0] in found else 'missing'}, like {len(gone) - 1} more"
    outside, largest, far = [], (-1.0, ""), False
    for name, (value, low, high) in known.items():
        now = found[name][0]
        beyond = max(low - now, now - high)  # negative inside
        told = f"score {name}: {now:.4f}, {value:.4f} ({low:.4f} to {high:.4f}) was expected"
        far = far or beyond > high - low + 1e-6
        if beyond > 1e-6:
            outside.append((beyond, told))
        elif abs(now - value) > largest[0]:
            largest = abs(now - value), told
    share = len(outside) / max(len(known), 1)
    if not outside:
        return largest[0] / (1 + largest[0]), largest[1]
    told = f"{len(outside)} of {len(known)} scores lie outside their interval, most of all {max(outside)[1]}"
    return 2.0 if far else share / _SCORES_OUTSIDE, f"{told} ({_SCORES_OUTSIDE:.0%} may, by no more than its width)"


def _described(path: Path, output: str) -> dict[str, Any]:
    """Describe an output: sketches by part, scores with their intervals, sizes of pages."""
    if output.startswith(_RECORDS):
        return _described_record(path)
    sketches: dict[str, Sketch] = {}
    scores: dict[str, list[float]] = {}
    size = 0
    for name, file in _files(path):
        try:
            for part, values in _columns(file):
                if part == "scores":
                    scores |= values
                    continue
                sketch = sketches.setdefault(f"{file.suffix} {part}" if path.is_dir() else part, Sketch())
                place = f"{output}/{name}/{part}/{sketch.count}"
                if isinstance(values, _Classes):
                    sketch.add(values.values, place, classes=True)
                else:
                    sketch.add(values, place)
            if file.suffix not in _READERS and not (file / "zarr.json").is_file():
                size += file.stat().st_size
        except (OSError, ValueError, KeyError, rasterio.errors.RasterioError) as error:
            raise LineageError(f"{output}: {name} cannot be read ({error})") from error
    found: dict[str, Any] = {part: sketch.to_json() for part, sketch in sketches.items()}
    return found | ({"scores": scores} if scores else {}) | ({"size": size} if size else {})


def _described_record(path: Path) -> dict[str, Any]:
    """Of a record: which code and parameters made what it is of; hashes and machine are others by nature."""
    record = json.loads(path.read_text("utf-8"))
    sketch = Sketch()
    kept = {key: record.get(key) for key in ("code", "parameters")}
    if isinstance(kept["code"], dict):
        kept["code"] = kept["code"].get("files")
    sketch.add([json_text(kept)], path.name)
    return {"code and parameters": sketch.to_json()}


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield what an output consists of: its files, and Zarr groups as a whole."""
    if path.is_file() or (path / "zarr.json").is_file():
        yield path.name, path
        return
    for child in sorted(path.iterdir()):
        if child.is_dir() and child.name != "__pycache__" and not (child / "zarr.json").is_file():
            yield from ((f"{child.name}/{name}", file) for name, file in _files(child))
        elif child.name != "__pycache__":
            yield child.name, child


@dataclass(frozen=True)
class _Classes:
    values: Values


def _columns(file: Path) -> Iterator[tuple[str, Any]]:
    if file.is_dir():
        yield from _of_zarr(file)
    elif file.suffix in _READERS:
        yield from _READERS[file.suffix](file)


def _of_table(file: Path) -> Iterator[tuple[str, Any]]:
    table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    if set(_SCORES) <= set(table.columns):
        names = [name for name in table.columns if table[name].dtype.kind not in "f" or name == "gsd_m"]
        keys = table[names].astype(str).agg(" ".join, axis=1)
        rows = table[list(_SCORES)].astype(float).round(6).to_numpy().tolist()
        whole = {key: row for key, row in zip(keys, rows, strict=True) if np.isfinite(row).all()}
        yield "scores", whole
        return
    for name in table.columns:
        values = table[name].to_numpy()
        if values.dtype.kind == "O" and len(values) and isinstance(values[0], (np.ndarray, list)):
            values = np.concatenate([np.asarray(one) for one in values])
        if values.dtype.kind == "O" and any(isinstance(one, bytes) for one in values):
            values = np.array([bytes(one).hex() if one is not None else "" for one in values])
        yield str(name), values


def _of_raster(file: Path) -> Iterator[tuple[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pictures of pages lie nowhere
        source = rasterio.open(file, driver="GTiff" if file.suffix == ".tif" else "PNG")
    with source:
        for number in source.indexes:
            classes = source.colorinterp[number - 1].name == "palette"
            band = source.read(number)
            yield f"band {number}", _Classes(band) if classes else band


def _of_arrays(file: Path) -> Iterator[tuple[str, Values]]:
    with np.load(file, allow_pickle=False) as arrays:
        yield from ((name, arrays[name]) for name in arrays.files)


def _of_tensors(file: Path) -> Iterator[tuple[str, Values]]:
    tensors = load_file(file)
    yield "weights", np.concatenate([tensors[name].ravel().astype(np.float64) for name in sorted(tensors)])


def _of_zarr(folder: Path) -> Iterator[tuple[str, Values]]:
    group = zarr.open_group(folder, mode="r")
    for name, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            for start in range(0, array.shape[0], 64):
                yield str(name), np.asarray(array[start : start + 64])


def _of_json(file: Path) -> Iterator[tuple[str, Values]]:
    leaves = sorted(_leaves(json.loads(file.read_text("utf-8")), ""))
    yield "names", np.array([name for name, _ in leaves])
    yield "numbers", np.array([value for _, value in leaves if isinstance(value, (int, float))], np.float64)
    yield "texts", np.array([str(value) for _, value in leaves if not isinstance(value, (int, float))])


def _leaves(content: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (JSON)
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{name}.{key}")
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _leaves(value, f"{name}.{number:06d}")
    else:
        yield name, content


_READERS = {
    ".parquet": _of_table,
    ".csv": _of_table,
    ".tif": _of_raster,
    ".png": _of_raster,
    ".npz": _of_arrays,
    ".safetensors": _of_tensors,
    ".json": _of_json,
    ".geojson": _of_json,
}
