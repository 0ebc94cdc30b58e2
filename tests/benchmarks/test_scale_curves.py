import re
from xml.etree import ElementTree

import pandas as pd

from benchmarks.compare import findings
from benchmarks.compare.findings import draw_scale_curves


def rows(model, seed, *, metric="knn_both_coarse", scales=(10.0, 20.0, 40.0), data="fields"):
    return [
        {"task": "classify", "data": data, "mode": "knn", "metric": metric, "model": model, "seed": seed,
         "value": 0.8 - gsd / 100 + seed / 50, "low": 0.3, "high": 0.9, "gsd_m": gsd, "native_gsd_m": 10.0}
        for gsd in scales
    ]  # fmt: skip


def test_every_model_and_reading_is_in_the_picture_and_bytes_are_the_same():
    both = [*rows("mae", 0), *rows("mae", 1), *rows("random", 0)]
    table = pd.DataFrame([*both, *rows("mae", 0, metric="knn_query_coarse")])
    svg = draw_scale_curves(table, ["mae", "absent", "random"])
    assert svg == draw_scale_curves(table, ["mae", "absent", "random"])
    root = ElementTree.fromstring(svg)
    texts = ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for expected in ("fields: test images coarse", "fields: both sides coarse", "mae", "random", "10", "20", "40"):
        assert expected in texts
    assert "absent" not in texts
    assert not re.search(rb"\d{4}-\d{2}-\d{2}T", svg)


def test_without_two_scales_there_is_no_curve():
    assert draw_scale_curves(pd.DataFrame(rows("mae", 0, scales=(10.0,))), ["mae"]) is None


def test_only_what_nothing_was_trained_for_is_grey():
    """Grey among the lines of methods would be read as a baseline."""
    models = [f"method_{number}" for number in range(9)]
    table = pd.DataFrame([row for number, model in enumerate([*models, "pixels"]) for row in rows(model, number)])
    svg = draw_scale_curves(table, [*models, "pixels"]).decode()
    colours = set(re.findall(r"stroke: (#[0-9a-f]{6})", svg))
    assert {f"#{bytes(round(255 * part) for part in rgb[:3]).hex()}" for rgb in findings._COLOURS} <= colours
    assert "#7f7f7f" not in colours


def test_a_colour_that_comes_again_is_dotted():
    models = [f"method_{number}" for number in range(10)]
    table = pd.DataFrame([row for number, model in enumerate(models) for row in rows(model, number)])
    lines = [
        re.findall(r"stroke-dasharray", draw_scale_curves(table[table.model.isin(models[:n])], models[:n]).decode())
        for n in (9, 10)
    ]
    assert not lines[0] and lines[1]
