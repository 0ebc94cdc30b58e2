"""Image sets as samples: the images of one place and period, with the label of one of them.

Samples are cut as of single images first. Those of one window of ground and one period then become one: of the image
that is labelled (the last one of the first sensor) with others of that place and period beside it, those first that
show most of the window, from every sensor in turn. Of a pair of dates each becomes a set: of images that lie on the
reference of the pair and are nearer to their date than half way to the other, so that no image is of both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from a2mae.tasks.data_parameters import InputParameters, nearer_than_halfway
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
        One sample for every place, window of ground and period, by place, period and window; of pairs one for every two
        periods and every label that differs.
    """
    if images.inputs is None:
        return list(cuts)
    together: dict[tuple[str, tuple[str, ...]], dict[tuple[Window, bytes], list[Cut]]]
    together = defaultdict(lambda: defaultdict(list))
    for cut in cuts:
        key = str(cut.images[0]["location_id"]), tuple(str(image["period"]) for image in cut.images)
        label = cut.target.tobytes() if len(cut.images) == 2 else b""  # pairs of other times may show other changes
        together[key][cut.window, label].append(cut)
    of_place = dict(iter(table.groupby("location_id", sort=True)))
    most, joined = images.inputs.images, list[Cut]()
    for place, keys in groupby(sorted(together), key=itemgetter(0)):
        members = [(image, images.valid(image)) for _, image in of_place[place].iterrows()]
        for (window, _), alike in (one for key in keys for one in sorted(together[key].items(), key=itemgetter(0))):
            labelled = _labelled(alike, images.sensors)
            name = f"{place}-{window[0]}-{window[2]}"
            if any(not np.array_equal(cut.target, labelled.target, equal_nan=True) for cut in alike):
                found.note("image sets whose images have different labels: that of the last one counts", name)
            others = []
            for own in labelled.images:
                beside = {  # by scene: one may be in several sets
                    str(image["scene_id"]): (image, share)
                    for image, valid in members
                    if _goes_with(image, own, labelled, images) and (share := images.seen_share(valid, window)) > 0
                }
                chosen = _in_turn(list(beside.values()), images.sensors, str(own["sensor"]))
                others.append(tuple(chosen[: most - 1]))
            if min(map(len, others)) < most - 1:
                found.note(f"image sets of fewer than {most} images", name)
            joined.append(replace(labelled, others=tuple(others)))
    return joined


def _goes_with(image: pd.Series, own: pd.Series, labelled: Cut, images: StoreImages) -> bool:
    """Tell whether an image of the place may stand beside the labelled one of a date."""
    if image["scene_id"] == own["scene_id"] or image["period"] != own["period"]:
        return False
    if len(labelled.images) == 1:
        return True
    first, second = (one["datetime"] for one in labelled.images)
    of_pair = images.reference[image["set_id"]] == images.reference[own["set_id"]]
    return bool(of_pair and nearer_than_halfway(image["datetime"], own["datetime"], second - first))


def told_of_sets(cuts: Sequence[Cut], inputs: InputParameters) -> str:
    """Say what the image sets of samples are made of, for the report."""
    counts = [len(one) for cut in cuts for one in cut.sets] or [0]
    sensors = ", ".join(sorted({str(image["sensor"]) for cut in cuts for one in cut.sets for image in one}))
    sample = "a pair of image sets, each of" if any(len(cut.images) == 2 for cut in cuts) else "an image set:"
    return (
        f"a sample is {sample} up to {inputs.images} images {inputs} of {sensors or 'no sensor'}"
        f" (found: {min(counts)} to {max(counts)}, {np.mean(counts):.1f} on average)"
    )


def _labelled(cuts: Sequence[Cut], sensors: Sequence[str]) -> Cut:
    """Choose the image whose label counts: of the first sensor that has one, the last; of pairs the first."""
    if len(cuts[0].images) == 2:
        return cuts[0]
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
