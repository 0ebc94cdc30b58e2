"""Notices are there where the tables say so, and not where they do not."""

import dataclasses

import pandas as pd

from a2mae.report.inputs import ReportInputs
from a2mae.report.sections.attention import attention
from a2mae.report.sections.summary import summary
from a2mae.report.stage_pages import pages

SENSOR = "sentinel-2-l2a"


def titles(inputs) -> list[str]:
    return [way.title for way in attention(inputs)]


def test_what_to_look_at_is_what_the_tables_say(inputs):
    assert titles(inputs) == [
        "The scenes are simulated",
        "3 images of 12 could not be registered",
        "Segmentation does not gain from pretraining",
        "Some scores rest on 10 locations",
    ]
    shown = {page.name for page in pages(inputs)}
    assert all(way.page in shown for way in attention(inputs)), "no notice leads to a page that is not there"
    many = dataclasses.replace(inputs, rejected_images=pd.concat([inputs.rejected_images] * 4))
    assert "4 of 16 images rejected" in titles(many)
    assert next(w for w in attention(many) if "rejected" in w.title).text == "The most frequent reason is “cloud”."


def test_a_sensor_that_was_never_trained_on_is_named(inputs):
    assert not [title for title in titles(inputs) if "trained on" in title]
    alone = [[SENSOR], ["landsat-oli-c2-l2"], ["gaofen-1", SENSOR]]  # train; val and pruned; test
    missing = dataclasses.replace(inputs, sets=inputs.sets.assign(sensors=alone))
    assert "gaofen-1 and landsat-oli-c2-l2 were never trained on" in titles(missing)
    assert not [title for title in titles(dataclasses.replace(missing, model_dir=None)) if "trained on" in title]


def test_images_without_cloud_mask_are_counted_once(inputs):
    images = inputs.images
    unseen = images.assign(cloud_fraction=images["cloud_fraction"].where(images["sensor"] == SENSOR))
    told = [way for way in attention(dataclasses.replace(inputs, images=unseen)) if "cloud mask" in way.title]
    assert [way.title for way in told] == ["No cloud mask for 6 images of landsat-oli-c2-l2"]
    assert "'mask' in 'ingest.rules'" in told[0].text and "'coregister.clouds.functions'" in told[0].text
    radar = unseen.assign(sensor=unseen["sensor"].replace("landsat-oli-c2-l2", "sentinel-1-rtc"))
    few = images.assign(cloud_fraction=images["cloud_fraction"].mask(images.index == 5))
    for fine in (radar, few, images):
        assert not [title for title in titles(dataclasses.replace(inputs, images=fine)) if "cloud mask" in title]


def test_images_that_could_not_be_registered_are_told_by_their_share(inputs):
    images = inputs.images
    state = images["registration"]

    def told(registration):
        looked = attention(dataclasses.replace(inputs, images=images.assign(registration=registration)))
        return [way for way in looked if "not be registered" in way.title]

    assert "most of the images" not in told(state)[0].text
    most = told(state.replace("registered", "nominal"))[0]
    assert most.title == "9 images of 12 could not be registered" and "most of the images" in most.text
    assert "'coregister.keep_nominal: false'" in most.text
    assert not told(state.where((state != "nominal") | (images.index == 3), "registered")), "one of twelve is no notice"


def test_what_to_look_at_names_a_training_that_failed(inputs, model_dir):
    rows = {"step": [1, 2], "loss": [0.5, 0.6], "effective_rank": [12.0, 3.0]}
    pd.DataFrame(rows).to_csv(model_dir / "run" / "metrics.csv", index=False)
    assert {"The loss did not fall", "The effective rank of the features fell"} <= set(titles(inputs))


def test_nothing_to_look_at_says_so(sets, images, rejected):
    fine = images.assign(registration="registered")
    inputs = ReportInputs("A", ("tag",), sets=sets, images=fine, rejected_images=rejected)
    section = next(s for s in summary(inputs, ()).sections if s.name == "look-at")
    assert section.lead == "Nothing stands out." and not section.blocks
