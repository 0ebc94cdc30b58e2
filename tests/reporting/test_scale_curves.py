import re
from xml.etree import ElementTree

import pandas as pd

from a2mae.reporting.scale_curves import draw_scale_curves


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
