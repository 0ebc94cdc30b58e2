"""One SHA-256 for a file, a folder, or an image-set store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from a2mae.files import file_digest

STORE_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Content:
    """What lies at a path.

    Attributes:
        sha256: Of the file; of a folder, over the digests of its files.
        files: Digest of each file of a folder by its path below it; empty for a file.
    """

    sha256: str
    files: Mapping[str, str]


def digest_of(content: object) -> str:
    """SHA-256 of a JSON value in its one canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_of(path: Path, *, trust_manifest: bool = False) -> Content | None:
    """What lies at a path; None if nothing does.

    Args:
        path: A file or a folder.
        trust_manifest: Take a store's shard digests from the manifest that its builder has just written instead of
            reading terabytes again. A check reads every byte and comes to the same hash.
    """
    if path.is_file():
        return Content(file_digest(path), {})
    if not path.is_dir():
        return None
    declared = _shards(path) if trust_manifest else {}
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = file.relative_to(path).as_posix()
            files[name] = declared.get(name) or file_digest(file)
    return Content(digest_of(files), files)


def _shards(folder: Path) -> dict[str, str]:
    """Shard digests of an image-set store; nothing for any other folder."""
    if not (folder / "zarr.json").is_file() or not (folder / STORE_MANIFEST).is_file():
        return {}
    shards = json.loads((folder / STORE_MANIFEST).read_text("utf-8")).get("shards", {})
    return {key: entry["sha256"] for key, entry in shards.items()}
