"""`a2mae search OUT`: places of an archive, or of published annual embeddings, that look like some examples."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2mae.commands.project import check_pipeline, configuration, find_project, local_path
from a2mae.errors import InputError, plural

if TYPE_CHECKING:
    import geopandas as gpd

_ARCHIVE = ("image_sets", "images", "sets")
_READ = ("embedding_store", "pretrained_model", "embeddings", "locations", *_ARCHIVE)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `search` to the commands of `a2mae`."""
    about = "places that look like these, by a point, a file of examples, a picture or ids"
    parser = commands.add_parser(
        "search",
        help=about,
        description=about,
        epilog="for example:\n  a2mae search found --env lake --point 13.05 53.91\n\n"
        "What is not given is as in the group search of the environment's parameters.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=local_path, help="folder to write; it must not be there")
    parser.add_argument("--env", default="base", help="whose archive, after its stage embed (%(default)s)")
    parser.add_argument(
        "--cogs",
        type=local_path,
        help="instead of an archive: a folder of annual embeddings, as AlphaEarth's or TESSERA's",
    )
    parser.add_argument("--block-px", type=int, default=32, help="with --cogs: pixels of the side of a place (32)")
    parser.add_argument("--point", nargs=2, type=float, metavar=("LON", "LAT"), help="a place like which to find")
    parser.add_argument("--examples", type=local_path, help="points or polygons; an attribute wanted says 1 or 0")
    parser.add_argument("--chip", type=local_path, help="a GeoTIFF that shows what is wanted")
    parser.add_argument("--chip-sensor", help="whose image it is")
    parser.add_argument("--ids", nargs="+", help="images or sets that are wanted")
    parser.add_argument("--not-ids", nargs="+", help="images or sets that are not wanted")
    parser.add_argument("--sensors", nargs="+", help="look at these alone")
    parser.add_argument("--level", choices=("image", "set"), help="rank images, or whole image sets")
    parser.add_argument("--top", type=int, help="hits")
    parser.add_argument("--exclude-m", type=float, help="ground so near to an example is left out")
    parser.set_defaults(run=_run)


_GIVEN = ("point", "examples", "chip", "chip_sensor", "ids", "not_ids", "sensors", "level", "top", "exclude_m")
_QUERY = ("point", "examples", "chip", "ids")


def _run(options: argparse.Namespace) -> None:
    check_pipeline()
    if options.out.exists():
        raise InputError(f"{options.out} is there already: name what is not, or remove it")
    given = {name: getattr(options, name) for name in _GIVEN if getattr(options, name) is not None}
    given |= {name: str(given[name].resolve()) for name in ("examples", "chip") if name in given}
    if not given.keys() & set(_QUERY):
        raise InputError("name what to look for: --point, --examples, --chip or --ids")
    hits = _of_cogs(options, given) if options.cogs is not None else _of_archive(options, given)
    for row in hits.head(10).itertuples():
        when = f"{row.datetime:%Y-%m-%d}"
        sys.stdout.write(f"{row.rank:3}  {row.score:5.2f}  {row.lon:9.4f} {row.lat:8.4f}  {when}  {row.id}\n")
    names = ", ".join(sorted(path.name for path in options.out.iterdir()))
    sys.stdout.write(f"{options.out}: {plural(len(hits), 'hit')} (longitude, latitude); {names}\n")


def _of_cogs(options: argparse.Namespace, given: dict[str, Any]) -> gpd.GeoDataFrame:
    from a2mae.config import validated  # noqa: PLC0415
    from a2mae.explore.foreign import import_cogs  # noqa: PLC0415 (`--help` is instant)
    from a2mae.explore.parameters import SearchParameters  # noqa: PLC0415
    from a2mae.explore.results import search_archive  # noqa: PLC0415

    if "chip" in given:
        raise InputError("--chip is embedded by the model of an archive, and --cogs are another model's: use --point")
    if not options.cogs.exists():
        raise InputError(f"{options.cogs} is missing: --cogs names a folder of annual embeddings")
    parameters = validated(SearchParameters, {"search": given}, "search")
    store = import_cogs(options.cogs, options.out.with_name(f"{options.out.name}_vectors"), block_px=options.block_px)
    return search_archive(parameters, store, options.out)


def _of_archive(options: argparse.Namespace, given: dict[str, Any]) -> gpd.GeoDataFrame:
    from a2mae.config import validated  # noqa: PLC0415
    from a2mae.explore.archive import Archive  # noqa: PLC0415 (`--help` is instant)
    from a2mae.explore.parameters import SearchParameters  # noqa: PLC0415
    from a2mae.explore.results import search_archive  # noqa: PLC0415
    from a2mae.explore.store import open_store  # noqa: PLC0415
    from a2mae.models.sources import weights_digest  # noqa: PLC0415

    project = find_project(Path.cwd())
    if project is None:
        raise InputError(f"{Path.cwd()} lies in no project: go into the one whose archive is searched")
    loader, catalog = configuration(project, options.env, _READ)
    # What is given on the command line is all that is looked for.
    nothing: dict[str, object] = {**dict.fromkeys(_QUERY), "ids": (), "not_ids": ()}
    parameters = validated(SearchParameters, loader["parameters"], "search", **nothing | given)
    missing = [name for name in ("embedding_store", "pretrained_model") if not catalog.exists(name)]
    if missing:
        raise InputError(
            f"the environment {options.env} has no {missing[0].replace('_', ' ')} yet: make it first, kedro run"
            f" --env={options.env} --pipelines=embed"
        )
    pretrained = catalog.load("pretrained_model")
    archive = None
    if all(catalog.exists(name) for name in _ARCHIVE):
        archive = Archive(*(catalog.load(name) for name in _ARCHIVE))
    return search_archive(
        parameters,
        open_store(catalog.load("embedding_store"), weights_digest(pretrained)),
        options.out,
        archive=archive,
        locations=catalog.load("locations") if catalog.exists("locations") else None,
        pretrained=pretrained,
        embeddings=catalog.load("embeddings") if catalog.exists("embeddings") else None,
    )
