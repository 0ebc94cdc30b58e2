"""Image sets as samples: the images of one place and period, with the label of one of them.

Samples are cut as of single images first. Those of one window of ground and one period then become one: of the image
that is labelled (the last one of the first sensor) with others of that place and period beside it, those first that
show most of the window, from every sensor in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from a2mae.tasks.data_parameters import InputParameters
from a2mae.tasks.datasets.labelled import Reading
from a2mae.tasks.datasets.store_samples import Cut, StoreImages, Window


def join_images(cuts: Iterable[Cut], images: StoreImages, table: pd.DataFrame, found: Reading) -> list[Cut]:
    """Make image sets of samples of single images.

    Args:
        cuts: Of single images; where `images` asks for no sets, they are returned as they are.
        images: Those of the archive, with what makes up a set.
        table: Rows of them that may be in a set.
        found: Is told of sets that have fewer images than were asked for, or images with different labels.

    Returns:
        One sample for every place, window of ground and period, by place, period and window.
    """
    if images.inputs is None:
        return list(cuts)
    together: dict[tuple[str, str], dict[Window, list[Cut]]] = defaultdict(lambda: defaultdict(list))
    for cut in cuts:
        image = cut.images[0]
        together[str(image["location_id"]), str(image["period"])][cut.window].append(cut)
    members = {
        (str(place), str(period)): [image for _, image in rows.iterrows()]
        for (place, period), rows in table.groupby(["location_id", "period"], sort=True)
    }
    most, joined = images.inputs.images, list[Cut]()
    for key in sorted(together):
        valid = [images.valid(image) for image in members[key]]
        for window in sorted(together[key]):
            labelled = _labelled(together[key][window], images.sensors)
            name = f"{key[0]}-{window[0]}-{window[2]}"
            if any(not np.array_equal(cut.target, labelled.target, equal_nan=True) for cut in together[key][window]):
                found.note("image sets whose images have different labels: that of the last one counts", name)
            own = str(labelled.images[0]["scene_id"])
            others = [
                (image, share)
                for image, of in zip(members[key], valid, strict=True)
                if str(image["scene_id"]) != own and (share := images.seen_share(of, window)) > 0
            ]
            chosen = _in_turn(others, images.sensors, str(labelled.images[0]["sensor"]))[: most - 1]
            if len(chosen) < most - 1:
                found.note(f"image sets of fewer than {most} images", name)
            joined.append(replace(labelled, images=(labelled.images[0], *chosen)))
    return joined


def told_of_sets(cuts: Sequence[Cut], inputs: InputParameters) -> str:
    """Say what the image sets of samples are made of, for the report."""
    counts = [len(cut.images) for cut in cuts] or [0]
    sensors = ", ".join(sorted({str(image["sensor"]) for cut in cuts for image in cut.images}))
    return (
        f"a sample is an image set: up to {inputs.images} images {inputs} of {sensors or 'no sensor'}"
        f" (found: {min(counts)} to {max(counts)}, {np.mean(counts):.1f} on average)"
    )


def _labelled(cuts: Sequence[Cut], sensors: Sequence[str]) -> Cut:
    """Choose the image whose label counts: of the first sensor that has one, the last."""
    return min(
        cuts, key=lambda cut: (sensors.index(cut.images[0]["sensor"]), -pd.Timestamp(cut.images[0]["datetime"]).value)
    )


def _in_turn(images: Sequence[tuple[pd.Series, float]], sensors: Sequence[str], first: str) -> list[pd.Series]:
    """Order images by turns of sensors, beginning after that of the first; of each the one that shows most first."""
    start = sensors.index(first) + 1
    ordered = [*sensors[start:], *sensors[:start]]
    of_sensor = {
        sensor: sorted(
            (pair for pair in images if pair[0]["sensor"] == sensor),
            key=lambda pair: (-round(pair[1], 2), pair[0]["datetime"], str(pair[0]["scene_id"])),
        )
        for sensor in ordered
    }
    turns = max((len(found) for found in of_sensor.values()), default=0)
    return [of_sensor[sensor][turn][0] for turn in range(turns) for sensor in ordered if turn < len(of_sensor[sensor])]
