"""A small STAC API on loopback with what the public ones have: pages, `query`, CQL2 in both forms.

The installed server (rustac) pages but knows no filters without an extension from the network. This one refuses what
it does not know, so that a test cannot pass because a filter was ignored.
"""

from __future__ import annotations

import contextlib
import json
import operator
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pystac

from a2mae.simulate.delivery.manifest import Manifest
from helpers.http_server import listening

CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
]
OPERATORS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne,
}  # fmt: skip
QUERY = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "eq": "=", "neq": "<>"}
TEXT = re.compile(r"""\s*"?([\w:]+)"?\s*(<=|>=|<>|<|>|=)\s*('?)([^'\s]+)\3\s*""")


@dataclass
class Api:
    """A running API.

    Attributes:
        url: Its root.
        searches: What was asked, page by page.
        broken: Pages, counted from 0, that are answered by 502.
        matched: What pages say of the number of items that match; None: nothing.
        last: The page that links to no further one, though there is one; None: none.
    """

    url: str
    searches: list[dict[str, object]] = field(default_factory=list)
    broken: tuple[int, ...] = ()
    matched: int | None = None
    last: int | None = None


def items_of(folder: Path, manifest: Manifest, url: str) -> list[dict]:
    """The items of a simulation whose folder a server has at `url`, with addresses of their files there."""
    items = []
    for entry in manifest.scenes:
        path = folder / entry.item
        item = pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)
        for asset in item.assets.values():
            asset.href = f"{url}/{path.parent.relative_to(folder).as_posix()}/{asset.href.lstrip('./')}"
        items.append({**item.to_dict(include_self_link=False, transform_hrefs=False), "links": []})
    return items


def holds(item: dict, expression: dict) -> bool:
    """Whether an item fits a CQL2 JSON expression."""
    name, arguments = expression["op"], expression["args"]
    if name == "and":
        return all(holds(item, part) for part in arguments)
    value = item["properties"].get(arguments[0]["property"])
    return value is not None and OPERATORS[name](value, arguments[1])


def parsed(text: str) -> dict:
    """CQL2 text of comparisons joined by AND as CQL2 JSON."""
    parts = []
    for part in re.split(r"\bAND\b", text, flags=re.IGNORECASE):
        name, sign, quote, value = TEXT.fullmatch(part).groups()
        parts.append({"op": sign, "args": [{"property": name}, value if quote else float(value)]})
    return {"op": "and", "args": parts}


def found(items: list[dict], asked: dict) -> list[dict]:
    """The items of a search."""
    unknown = set(asked) - {
        "collections", "bbox", "datetime", "query", "filter", "filter-lang", "limit", "token", "conf", "filter-crs",
    }  # fmt: skip
    if unknown:
        raise ValueError(f"unknown: {unknown}")
    west, south, east, north = asked.get("bbox", (-180, -90, 180, 90))
    start, _, end = str(asked.get("datetime", "../..")).partition("/")
    kept = []
    for item in items:
        w, s, e, n = item["bbox"]
        when = item["properties"]["datetime"]
        filters = [
            {"op": QUERY[key], "args": [{"property": name}, value]}
            for name, rule in (asked.get("query") or {}).items()
            for key, value in rule.items()
        ]
        if asked.get("filter"):
            filters.append(asked["filter"] if isinstance(asked["filter"], dict) else parsed(asked["filter"]))
        if (
            (not asked.get("collections") or item["collection"] in asked["collections"])
            and w <= east and e >= west and s <= north and n >= south
            and (start == ".." or when >= start) and (end in ("", "..") or when[: len(end)] <= end)
            and all(holds(item, rule) for rule in filters)
        ):  # fmt: skip
            kept.append(item)
    return kept


@contextlib.contextmanager
def serve_api(items: list[dict]) -> Iterator[Api]:
    """Serve items while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            asked: dict[str, object] = dict(urllib.parse.parse_qsl(parts.query))
            for key in ("collections", "bbox"):
                if key in asked:
                    asked[key] = str(asked[key]).split(",")
            if "bbox" in asked:
                asked["bbox"] = [float(number) for number in asked["bbox"]]
            if parts.path == "/search":
                self._search(asked, method="GET")
            elif parts.path == "/collections":
                self._send(200, {"collections": self._collections(), "links": []})
            else:
                self._send(200 if parts.path == "/" else 404, self._root())

        def do_POST(self) -> None:
            self._search(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), method="POST")

        def _root(self) -> dict:
            links = [
                {"rel": rel, "href": api.url + path}
                for rel, path in (("self", "/"), ("root", "/"), ("data", "/collections"))
            ]
            links += [
                {"rel": "search", "href": f"{api.url}/search", "type": "application/geo+json", "method": method}
                for method in ("GET", "POST")
            ]
            return {
                "type": "Catalog", "id": "loopback", "stac_version": "1.0.0", "description": "d", "links": links,
                "conformsTo": CONFORMANCE,
            }  # fmt: skip

        def _collections(self) -> list[dict]:
            extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
            return [
                {
                    "type": "Collection", "id": name, "stac_version": "1.0.0", "description": "d", "license": "other",
                    "extent": extent, "links": [],
                }
                for name in sorted({item["collection"] for item in items})
            ]  # fmt: skip

        def _search(self, asked: dict, *, method: str) -> None:
            api.searches.append(asked)
            try:
                matching = found(items, asked)
            except (KeyError, ValueError, AttributeError) as error:
                self._send(400, {"code": "BadRequest", "description": repr(error)})
                return
            first, limit = int(asked.get("token", 0)), int(asked.get("limit", 10))
            if first // limit in api.broken:
                self._send(502, {"code": "BadGateway"})
                return
            page = {"type": "FeatureCollection", "features": matching[first : first + limit], "links": []}
            if api.matched is not None:
                page["numberMatched"] = api.matched
            if first + limit < len(matching) and first // limit != api.last:
                further = {**asked, "token": str(first + limit)}
                link = {"rel": "next", "href": f"{api.url}/search", "method": method}
                if method == "POST":
                    link["body"] = further
                else:
                    flat = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in further.items()}
                    link["href"] += "?" + urllib.parse.urlencode(flat)
                page["links"].append(link)
            self._send(200, page)

        def _send(self, status: int, document: dict) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests read `Api.searches` instead."""

    with listening(Handler) as url:
        api = Api(url)
        yield api
