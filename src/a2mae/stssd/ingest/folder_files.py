"""Find out which files of a folder belong together: rules in the configuration say which names make which scenes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import shapely

from a2mae.errors import RejectedError, names_nothing
from a2mae.raster.header import RasterHeader
from a2mae.remote.policy import HrefPolicy
from a2mae.scenes import RejectedScene
from a2mae.stssd.ingest.checks import Found
from a2mae.stssd.ingest.rules import ExcludeRule, FolderRule

logger = logging.getLogger(__name__)

_SAME_GROUND = 0.98  # of what either file shows
_IDENTITY = ("date", "scene")


@dataclass(frozen=True)
class Candidate:
    """Files that a rule takes for one scene.

    Attributes:
        scene_id: Made of the path.
        rule: The rule.
        fields: Values of the fields of its pattern, without `band`.
        files: Value of the `band` field ("" where a file holds all bands) -> paths below the folder. Products that
            come at several pixel sizes have several files of a band.
    """

    scene_id: str
    rule: FolderRule
    fields: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]

    @property
    def paths(self) -> list[str]:
        """Every file, and that of a mask beside them."""
        own = [] if self.mask_file is None else [self.mask_file]
        return [*chain(*self.files.values()), *own]

    @property
    def folder(self) -> str:
        """Where the first of its files lies, below the folder."""
        return os.path.dirname(next(iter(self.files.values()))[0])

    @property
    def mask_file(self) -> str | None:
        """Path below the folder of the file that is its mask; None without a mask in a file of its own."""
        return None if self.rule.mask is None else self.beside(self.rule.mask.file)

    @property
    def mtl_file(self) -> str | None:
        """Path below the folder of its MTL file; None without one."""
        return self.beside(self.rule.landsat_mtl)

    def beside(self, template: str | None) -> str | None:
        """Path below the folder of a file that is named by the fields of the bands' files; None for None."""
        if template is None:
            return None
        for key, value in self.fields.items():
            template = template.replace("{" + key + "}", value)
        return os.path.normpath(os.path.join(self.folder, template))


def walk(root: Path, policy: HrefPolicy, found: Found) -> Iterator[str]:
    """List the files below a folder, in a fixed order.

    Linked folders are followed where the policy allows it, each once; those that are not, and folders that may not be
    listed, are added to `found`.

    Args:
        root: The folder.
        policy: Where links may lead.
        found: Takes what is rejected.
    """
    listed = [os.path.realpath(root)]

    def unlisted(error: OSError) -> None:
        shown = Path(error.filename).relative_to(root).as_posix()
        detail = f"the folder cannot be read ({error.strerror}): what it holds is not seen; change its access"
        found.rejected.append(RejectedScene(shown, "unreadable", detail))

    for folder, folders, files in os.walk(root, onerror=unlisted, followlinks=True):
        folders.sort()
        for name in list(folders):
            path = Path(folder, name)
            if not path.is_symlink():
                continue
            shown, real = path.relative_to(root).as_posix(), os.path.realpath(path)
            try:
                policy.check_path(path)
                if any(real == other or real.startswith(other + os.sep) for other in listed):
                    raise RejectedError("linked_twice", f"{shown} is a link to files that are found without it")
                listed.append(real)
            except RejectedError as rejection:
                folders.remove(name)
                found.rejected.append(RejectedScene(shown, rejection.reason, rejection.detail))
        for name in sorted(files):
            below = Path(folder, name).relative_to(root).as_posix()
            if why := names_nothing(below):
                found.rejected.append(RejectedScene(below, "bad_href", f"{below!a} {why}"))
            else:
                yield below


def exclude(names: Sequence[str], rules: Sequence[ExcludeRule], found: Found) -> list[str]:
    """Leave out files that are no scenes; how many each rule leaves out is added to `found`."""
    patterns = [rule.pattern() for rule in rules]
    counts: Counter[int] = Counter()
    kept = []
    for name in names:
        hit = next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(name)), None)
        if hit is None:
            kept.append(name)
        else:
            counts[hit] += 1
    for index, count in sorted(counts.items()):
        rule = rules[index]
        name = str(rule.files or rule.regex)
        found.rejected.append(RejectedScene(name, "excluded", f"{count} files match {name!r}: {rule.why}"))
    return kept


def candidates(names: Sequence[str], rules: Sequence[FolderRule], found: Found) -> list[Candidate]:
    """Sort files into scenes; what no rule takes, and no scene reads as its mask or metadata, is added to `found`.

    Args:
        names: Paths below the folder.
        rules: The first that matches wins.
        found: Takes what is rejected.
    """
    # A {date} that date_format cannot read is told as such, rather than that no rule matches.
    patterns = [*((rule.dated_pattern(), rule) for rule in rules), *((rule.pattern(), rule) for rule in rules)]
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], dict[str, str]] = defaultdict(dict)
    by_name = {rule.name: rule for rule in rules}
    out: list[Candidate] = []
    taken: Counter[str] = Counter()
    left: list[str] = []
    for name in names:
        hit = next(((rule, m) for pattern, rule in patterns if (m := pattern.fullmatch(name))), None)
        if hit is None:
            left.append(name)
            continue
        rule, match = hit
        taken[rule.name] += 1
        fields = {key: value for key, value in match.groupdict().items() if value is not None}
        if not isinstance(rule.bands, dict):
            out.append(Candidate(_safe_id(str(Path(name).with_suffix(""))), rule, fields, {"": (name,)}))
            continue
        token = fields.pop("band")
        if token not in rule.bands and (rule.mask is None or token != rule.mask.token):
            detail = f"rule {rule.name!r} matches, but its bands have no {token!r}: this file is not used"
            found.rejected.append(RejectedScene(name, "band_not_used", detail, rule.sensor))
            continue
        groups[rule.name, os.path.dirname(name), tuple(sorted(fields.items()))][token] = name
    _warn_of_idle(rules, taken)
    for (rule_name, folder, fields_), files in groups.items():
        scene_id = _safe_id("/".join([*filter(None, [folder]), rule_name, *(value for _, value in fields_)]))
        files_ = {token: (name,) for token, name in sorted(files.items())}
        out.append(Candidate(scene_id, by_name[rule_name], dict(fields_), files_))
    read = {path for one in out for path in (one.mask_file, one.mtl_file) if path is not None}
    detail = "no rule under ingest.rules matches this file and none under ingest.exclude leaves it out"
    found.rejected += [RejectedScene(name, "no_rule", detail) for name in left if name not in read]
    return [one for one in out if not read.issuperset(chain(*one.files.values()))]


def _warn_of_idle(rules: Sequence[FolderRule], taken: Mapping[str, int]) -> None:
    for rule in rules:
        if not taken.get(rule.name):
            logger.warning(
                "ingest.rules: rule %r takes no file: none below ingest.folder that an earlier rule or ingest.exclude"
                " leaves matches its pattern %r",
                rule.name,
                rule.files or rule.regex,
            )


def joined(
    found: Sequence[Candidate],
    headers: Mapping[str, RasterHeader | RejectedError],
    wanted: Mapping[str, frozenset[str]],
) -> list[Candidate]:
    """Join the bands of a scene that lie in sibling folders, as `R10m`, `R20m` and `R60m` of Sentinel-2's `.SAFE` do.

    Where files of a rule in one folder are no whole scene, those in its sibling folders with the same `{date}` and
    `{scene}` complete them, if they show the same ground.

    Args:
        found: Scenes of one folder each.
        headers: By path below the folder.
        wanted: By rule: values of the `band` field that make a whole scene.
    """
    together: dict[object, list[Candidate]] = defaultdict(list)
    out = []
    for one in found:
        identity = tuple((key, one.fields[key]) for key in _IDENTITY if key in one.fields)
        if isinstance(one.rule.bands, dict) and identity and one.folder:
            together[one.rule.name, os.path.dirname(one.folder), identity].append(one)
        else:
            out.append(one)
    for parts in together.values():
        needed = wanted[parts[0].rule.name]
        tokens = [frozenset(part.files) for part in parts]
        whole = all(needed <= part for part in tokens)
        if len(parts) == 1 or whole or not needed <= frozenset().union(*tokens) or not _same_ground(parts, headers):
            out += parts
        else:
            out.append(_join(parts))
    return out


def _same_ground(parts: Sequence[Candidate], headers: Mapping[str, RasterHeader | RejectedError]) -> bool:
    first = [headers[part.paths[0]] for part in parts]
    shapes = [header.footprint for header in first if isinstance(header, RasterHeader)]
    if len(shapes) < len(first):
        return False
    least = _SAME_GROUND * max(shape.area for shape in shapes)
    return all(shapely.intersection(shapes[0], shape).area >= least for shape in shapes)


def _join(parts: Sequence[Candidate]) -> Candidate:
    first = parts[0]
    files: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for token, paths in part.files.items():
            files[token] = (*files.get(token, ()), *paths)
    fields = {key: value for key, value in first.fields.items() if all(p.fields.get(key) == value for p in parts)}
    values = (value for _, value in sorted(fields.items()))
    scene_id = _safe_id("/".join([*filter(None, [os.path.dirname(first.folder)]), first.rule.name, *values]))
    return replace(first, scene_id=scene_id, fields=fields, files=dict(sorted(files.items())))


def _safe_id(path: str) -> str:
    """A path as a plain id; what had to be replaced is told apart by a hash."""
    plain = path.replace("/", "__")
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", plain).lstrip("._+-") or "scene"
    if safe != plain or len(safe) > 200:
        safe = f"{safe[:180]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    return safe
