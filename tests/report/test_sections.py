"""Sections say what the tables hold."""

import base64
import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from a2mae.report import text
from a2mae.report.blocks import Arrow, Page, Table, Way
from a2mae.report.sections.attention import attention
from a2mae.report.sections.data_set import PROPERTIES, choose_sets, four_properties, image_sets
from a2mae.report.sections.ingest import (
    commonest_reason,
    dark_pixels,
    rejected_images,
    rejected_scenes,
    simulated,
    value_ranges,
)
from a2mae.report.sections.locations import locations
from a2mae.report.sections.pretraining import curves, masking_seen, reconstructions
from a2mae.report.sections.pruning import pruning
from a2mae.report.sections.registration import registration, registration_errors, registration_truth
from a2mae.report.sections.scores import IN_WORDS, comparisons, knn_over_gsd, scores
from a2mae.report.sections.summary import provenance, summary
from a2mae.report.sections.tasks import mistakes, task_pictures
from a2mae.report.stage_pages import pages
from a2mae.stssd.tag.properties import four_properties as measure

SENSOR = "sentinel-2-l2a"


def rows_of(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def test_map_has_every_set_at_its_place(inputs):
    section = locations(inputs)
    figure = json.loads(section.blocks[0].figure_json)
    markers = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert {trace["name"] for trace in markers} == {"grid", "city"}
    assert "2 UTM zones (19S, 32N)" in section.lead
    squares = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert len(squares) == 2 and squares[0]["legendgroup"] == "city"
    assert len(section.blocks[0].table.rows) == 3
    views = {view.label: view for view in section.blocks[0].views}
    assert list(views) == ["all", "19S", "32N"]
    assert views["32N"].x[0] < 8.5 and views["32N"].x[1] > 8.9
    assert views["19S"].y[0] < -33.4 < views["19S"].y[1]
    assert tuple(figure["layout"]["xaxis"]["range"]) == views["all"].x


def test_map_of_one_zone_opens_at_its_locations(inputs):
    north = inputs.sets[inputs.sets["lat"] > 0]
    chart = locations(dataclasses.replace(inputs, sets=north)).blocks[0]
    layout, views = json.loads(chart.figure_json)["layout"], {view.label: view for view in chart.views}
    assert tuple(layout["xaxis"]["range"]) == views["32N"].x and tuple(layout["yaxis"]["range"]) == views["32N"].y
    assert list(views) == ["all", "32N"]


def test_bare_locations_are_drawn_before_there_are_sets(inputs):
    squares = inputs.sets[["location_id", "lon", "lat", "geometry"]].assign(crs="EPSG:32632", footprint_m=1920.0)
    section = locations(dataclasses.replace(inputs, sets=None, locations=squares))
    assert section.lead.startswith("3 locations") and section.blocks[0].table.rows[0][3] == "1,920 m"


def test_sets_shown_take_turns_over_the_kinds(sets):
    assert list(choose_sets(sets, 2)["kind"]) == ["city", "grid"]
    assert list(choose_sets(sets, 3)["set_id"]) == ["set-2", "set-0", "set-1"], "pruned sets come last"


def test_image_sets_name_date_sensor_shift_and_anchor(inputs):
    strips = image_sets(inputs).blocks[0].strips
    anchor, moved = strips[0].pictures[0], strips[0].pictures[3]
    assert anchor.badge == "anchor" and anchor.arrow is None and "reference of the location" in anchor.lines
    landsat = next(p for p in strips[0].pictures if p.arrow is not None and "Landsat" in p.lines[0])
    assert landsat.arrow == Arrow(6.4, -1.1)
    assert "moved +6.4 m east, -1.1 m north (0.05 px residual)" in landsat.lines
    assert "2021-05-05, 30 m, 16 × 16 px" in landsat.lines
    assert [p.badge for p in strips[0].pictures].count("anchor") == 1
    assert moved.badge == ""
    assert "cloud 10 %, valid 90 %" in landsat.lines
    unseen = dataclasses.replace(inputs, images=inputs.images.assign(cloud_fraction=None))
    assert "no cloud mask, valid 90 %" in image_sets(unseen).blocks[0].strips[0].pictures[0].lines


def test_arrow_points_the_way_the_image_was_moved():
    east, up = Arrow(3, 4).tip(10)
    assert (east, up) == pytest.approx((6, -8)), "north is up, and y points down in SVG"
    assert Arrow(0, 0).tip(10) == (0, 0)


def test_registration_counts_states_by_sensor(inputs):
    table = next(block for block in registration(inputs).blocks if block.kind == "table")
    sentinel = rows_of(table)["sentinel-2-l2a"]
    assert sentinel[:4] == ("6", "3", "3", "0")
    assert sentinel[4] == text.number(math.hypot(3.2, 1.1), 2)


def test_errors_against_the_truth_take_the_reference_into_account(inputs):
    moved = inputs.images["registration"] == "registered"
    truth = pd.DataFrame(
        {
            "scene_id": inputs.images["scene_id"],
            "true_shift_x_m": 5.0 - inputs.images["shift_x_m"],  # the reference is 5 m off, too
            "true_shift_y_m": -2.0 - inputs.images["shift_y_m"],
        }
    )
    errors = registration_errors(inputs.images, truth)
    assert len(errors) == 9, "references have no error relative to themselves"
    assert errors["after_m"].max() == pytest.approx(0, abs=1e-9)
    expected = inputs.images[moved][["shift_x_m", "shift_y_m"]].pow(2).sum(axis=1).pow(0.5)
    assert sorted(errors[errors["registration"] == "registered"]["before_m"]) == pytest.approx(sorted(expected))
    section = registration_truth(dataclasses.replace(inputs, true_shifts=truth))
    assert "is 0.00 m after it" in section.lead


def test_truth_is_absent_where_nothing_was_simulated(inputs):
    assert registration_truth(inputs) is None


def test_refusals_are_counted_by_reason_with_an_example(inputs):
    section = rejected_images(inputs)
    assert section.lead.startswith("1 image, each with its reason")
    example = "cloud covers 100 % of the square; at most 40 % is accepted"
    assert section.blocks[0].rows == (("cloud", "landsat-oli-c2-l2", "1", example),)
    assert rejected_scenes(inputs).blocks[0].rows[0][0] == "corrupt"
    reasons = pd.DataFrame({"reason": ["cloud", "nodata", "nodata", "cloud", "far"]})
    assert commonest_reason(reasons) == "cloud", "the first of the alphabet where two are as common"


def test_scenes_are_counted_once_and_excluded_files_are_not_counted_as_rejected(inputs):
    ids = [f"scene-{i}" for i in range(6)]
    scenes = pd.DataFrame({"scene_id": ids, "status": ["accepted"] * 5 + ["refused"]})
    refused = pd.DataFrame(
        [
            {"scene_id": "scene-5", "reason": "corrupt", "sensor": SENSOR, "detail": "cut short"},
            {"scene_id": "scene-4", "reason": "no_location", "sensor": SENSOR, "detail": "no square lies in it"},
            *({"scene_id": f"{i}.txt", "reason": "excluded", "sensor": None, "detail": "notes"} for i in range(3)),
        ]
    ).assign(location_id="", datetime=pd.NaT)
    counted = dataclasses.replace(inputs, scenes=scenes, refused_scenes=refused)
    assert "2 of 6 scenes rejected" in titles(counted)
    assert next(way.text for way in attention(counted) if "scenes rejected" in way.title) == (
        "The most frequent reason is “corrupt”."
    )
    facts = {fact.label: fact for fact in summary(counted, ()).sections[0].blocks[0].facts}
    assert (facts["scenes"].value, facts["scenes"].note) == ("4", "2 rejected")
    ingest = next(page for page in pages(counted) if page.name == "ingest")
    assert ingest.finding.startswith("4 scenes accepted, 2 rejected")
    by_reason = rejected_scenes(counted).blocks[0].rows
    assert by_reason[1][:3] == ("excluded", "–", "3"), "they are listed, without a sensor"
    alone = dataclasses.replace(counted, refused_scenes=refused[refused["reason"] == "excluded"])
    assert not [title for title in titles(alone) if "scenes rejected" in title]


def test_nothing_rejected_says_so(inputs):
    none = dataclasses.replace(inputs, refused_scenes=None, rejected_images=inputs.rejected_images.iloc[:0])
    assert rejected_scenes(none) is None and rejected_images(none).lead == "None: every image was used."


def test_curves_show_the_collapse_watches(inputs):
    section = curves(inputs)
    assert "from 1.0000 to 0.1826" in section.lead
    titles = {
        axis["title"]["text"]
        for key, axis in json.loads(section.blocks[0].figure_json)["layout"].items()
        if "yaxis" in key
    }
    assert titles == {"loss", "learning rate", "effective rank", "feature deviation"}


def test_where_nothing_is_held_out_curves_and_samples_say_so(inputs, model_dir):
    def curve_names():
        return {trace["name"] for trace in json.loads(curves(inputs).blocks[0].figure_json)["data"]}

    assert "Held-out samples, drawn" in reconstructions(inputs).lead and "loss" in curve_names()
    table = pd.read_csv(model_dir / "run" / "metrics.csv")
    table.assign(training_sets_loss=0.9).to_csv(model_dir / "run" / "metrics.csv", index=False)
    (model_dir / "metrics.json").write_text(json.dumps({"held_out_sets": 0}))
    assert "fixed training sets (none held out)" in curve_names()
    lead = reconstructions(inputs).lead
    assert lead.startswith("Samples of training sets (no locations are held out), drawn") and "Held-out" not in lead


def test_reconstructions_show_each_image_of_each_set(inputs):
    gallery = reconstructions(inputs).blocks[0]
    assert len(gallery.strips) == 2 * 3
    assert all(len(strip.pictures) == 4 for strip in gallery.strips)
    assert [strip.pictures[0].badge for strip in gallery.strips] == ["anchor", "", ""] * 2
    assert "set-0" in gallery.strips[0].title and "2021-03-14" in gallery.strips[0].title


def test_masking_is_described_by_the_masks_themselves():
    hidden = np.zeros((2, 3, 2, 2), bool)
    hidden[:, 0, 0] = hidden[:, 2, 0] = True
    hidden[:, 1, 1] = True
    data = {"sensor": np.array([["a", "a", "b"]] * 2), "hidden": hidden}
    said = masking_seen(data)
    assert "in 2 of 2 images of another sensor and in 0 of 2 images of the anchor's own sensor" in said
    assert masking_seen({"sensor": np.array([["a"]]), "hidden": hidden[:1, :1]}) == ""


def test_comparison_tells_a_difference_from_chance(inputs):
    by_task = {item.task: item for item in comparisons(inputs.scores)}
    assert by_task["classify"].clear and by_task["classify"].gain == pytest.approx(0.2)
    assert not by_task["segment"].clear and by_task["segment"].gain < 0
    assert "0.020 below random initialisation (difference -0.070 to +0.020)" in scores(inputs).lead


def test_a_task_of_several_classes_per_image_is_compared_by_its_own_metric(inputs):
    table = inputs.scores.replace({"metric": {"top1": "micro_f1"}})
    several = dataclasses.replace(inputs, scores=table)
    (item,) = [item for item in comparisons(table) if item.task == "classify"]
    assert item.metric == "micro_f1" and item.gain == pytest.approx(0.2) and item.label.endswith("micro F1")
    (page,) = [page for page in pages(several) if page.name == "classify"]
    assert page.finding.startswith("micro F1 0.800 (simulated), 0.200 above random initialisation")
    found = {section.name: section for section in summary(several, ()).sections}
    rows = rows_of(found["pays"].blocks[0])
    assert rows["Classification (simulated)"][0] == "better"
    assert rows["Classification (simulated)"][5] == IN_WORDS["micro_f1"]


def test_the_first_page_shows_frozen_scores_and_what_needs_no_training(inputs):
    knn = inputs.scores[(inputs.scores["metric"] == "knn_both_coarse") & (inputs.scores["gsd_m"] == 10)]
    knn = knn[knn["model"].isin(("pretrained", "random"))].assign(mode="knn_standardised")
    gain = knn[knn["model"] == "pretrained"].assign(mode="knn_standardised_gain", over="random", value=0.07, low=0.02)
    raw = knn.assign(mode="knn")
    loss = gain.assign(mode="knn_gain", value=-0.09, low=-0.12, high=-0.05)
    untrained = knn[knn["model"] == "random"].assign(model="rcf", value=0.71)
    task = inputs.scores[(inputs.scores["task"] == "segment") & (inputs.scores["model"] == "random")]
    scored = inputs.scores[~inputs.scores["mode"].isin(("knn", "knn_gain"))]
    table = pd.concat([scored, knn, gain, raw, loss, untrained, task.assign(model="rcf", value=0.58)])
    page = summary(dataclasses.replace(inputs, scores=table), ())
    assert page.finding.endswith(
        "Of 2 readings of the encoder as it is, pretraining scored higher than random initialisation on 1 (1 with an"
        " interval that excludes 0) and lower on 1 (1 with an interval that excludes 0)."
    )
    sections = {section.name: section for section in page.sections}
    value, untaught = (float(knn[knn["model"] == one]["value"].iloc[0]) for one in ("pretrained", "random"))
    assert dict(sections["good-for"].blocks[0].rows)["Encoder as it is"] == (
        f"the training images that look alike to it name the right class for {100 * value:.0f} of 100 images;"
        f" without pretraining {100 * untaught:.0f}"
    )
    (block,) = sections["pays"].blocks
    cells = {(row[0], row[6]): row for row in block.rows}
    frozen = cells["Classification (simulated)", IN_WORDS["knn_standardised"]]
    assert frozen[1] == "better" and frozen[4].startswith("+0.070") and frozen[5] == "0.710"
    as_it_stands = cells["Classification (simulated)", IN_WORDS["knn"]]
    assert as_it_stands[1] == "worse" and as_it_stands[4].startswith("-0.090")
    assert cells["Segmentation (simulated)", IN_WORDS["miou"]][5] == "0.580"
    assert cells["Change detection (simulated)", IN_WORDS["f1"]][5] == "–"


def test_knn_curves_are_ordered_by_gsd_for_both_readings(inputs):
    figure = json.loads(knn_over_gsd(inputs).blocks[0].figure_json)
    names = {trace["name"] for trace in figure["data"]}
    assert len(names) == 6 and "pixels, both sides coarsened" in names
    assert {trace["line"]["dash"] for trace in figure["data"]} == {"solid", "dot"}
    assert "10 m to 40 m" in knn_over_gsd(inputs).blocks[0].alt


def test_summary_counts_wins_honestly(inputs):
    page = summary(inputs, ())
    verdict = (
        "Of 3 tasks, pretraining scored higher than random initialisation on 2 (2 with an interval that excludes 0)"
    )
    assert verdict in page.finding
    found = {section.name: section for section in page.sections}
    assert list(found)[:2] == ["built", "good-for"]
    good_for = dict(found["good-for"].blocks[0].rows)
    assert good_for["Classification"] == "names the right class for 80 of 100 images; without pretraining 60"
    assert good_for["Segmentation"].endswith("without pretraining 82, too close to tell apart")
    built, pays = found["built"], found["pays"]
    facts = {fact.label: fact for fact in built.blocks[0].facts}
    assert facts["image sets"].value == "3" and facts["image sets"].note == "2 kept by pruning"
    rows = rows_of(pays.blocks[0])
    assert rows["Classification (simulated)"][0] == "better"
    assert rows["Segmentation (simulated)"][:3] == (
        "worse, but the interval of the difference includes 0",
        "0.800 (0.750 – 0.840)",
        "0.820 (0.770 – 0.860)",
    )
    assert rows["Change detection (simulated)"][3] == "+0.200 (+0.150 to +0.240)"
    assert rows["Change detection (simulated)"][5] == IN_WORDS["f1"]


def test_summary_links_each_stage_with_its_finding(inputs):
    stages = (Page("ingest", "Scenes", "Takes them in.", "3 scenes."), Page("tag", "Tags", "Tags them.", "4 tags."))
    assert summary(inputs, stages).sections[-1].blocks[0].ways == (
        Way("ingest", "Scenes", "3 scenes."),
        Way("tag", "Tags", "4 tags."),
    )


def titles(inputs) -> list[str]:
    return [way.title for way in attention(inputs)]


def test_offsets_that_dark_pixels_contradict_are_named(inputs):
    assert dark_pixels(inputs) is None
    twice = inputs.images["scene_id"] == "scene-0-1"
    wrong = dataclasses.replace(inputs, images=inputs.images.assign(dark_value=np.where(twice, -0.08, 0.02)))
    assert "2 Sentinel-2 scenes may have the wrong offset" in titles(wrong), "of two dates, either may be the wrong one"
    section = dark_pixels(wrong)
    assert rows_of(section.blocks[0])["scene-0-1"] == ("sentinel-2-l2a", "05.09", "-0.080", "-0.100")
    assert "ingest.sentinel2_offset" in section.lead
    page = next(page for page in pages(wrong) if page.name == "coregister")
    assert section in page.sections
    earlier = dataclasses.replace(inputs, images=inputs.images.drop(columns="dark_value"))
    assert titles(earlier) == titles(inputs)


def test_values_that_are_no_reflectance_are_named(inputs):
    assert value_ranges(inputs) is None
    assert "store" in vars(inputs) and inputs.store is not None
    bytes_of = inputs.images["scene_id"] == "scene-0-1"
    values = np.where(bytes_of, 0.0255, 0.4)
    wrong = dataclasses.replace(inputs, images=inputs.images.assign(bright_value=values))
    assert "1 scene may have the wrong units" in titles(wrong)
    section = value_ranges(wrong)
    assert rows_of(section.blocks[0])["scene-0-1"] == ("sentinel-2-l2a", "0.0200", "0.0255")
    assert "check scale, offset and units" in section.lead and section.lead.startswith("1 scene with")
    assert section in next(page for page in pages(wrong) if page.name == "coregister").sections
    earlier = dataclasses.replace(inputs, images=inputs.images.drop(columns="bright_value"))
    assert titles(earlier) == titles(inputs)


def test_the_regions_of_the_simulation_are_listed(inputs):
    section = simulated(inputs)
    assert "1 scene of 3 were made unusable" in section.lead
    assert rows_of(section.blocks[0])["elbe"] == ("temperate plain", "12.300° E, 51.900° N", "2", "7.0 %")


def test_mistakes_are_told_drawn_and_tabled(inputs):
    section = mistakes(inputs, "segment")
    assert section.lead == (
        "Most frequent mistakes: road predicted as <i>field</i> (40.0 % of its pixels); water predicted as"
        " <i>field</i> (10.0 % of its pixels)."
    )
    (chart,) = section.blocks
    drawn = json.loads(chart.figure_json)["data"][0]["z"]
    shares = np.frombuffer(base64.b64decode(drawn["bdata"]), drawn["dtype"]).reshape(4, 4)
    assert np.nansum(shares, axis=1).tolist() == [100, 100, 100, 0]  # no snow, so no share of it
    rows = {row[0]: row[1:] for row in chart.table.rows}
    assert rows["water"] == ("100", "90.0 %", "100.0 %", "90.0 %", "<i>field</i>")
    assert rows["<i>field</i>"] == ("100", "100.0 %", "76.9 %", "76.9 %", "–")
    assert rows["snow"] == ("0", "–", "–", "–", "–")
    assert mistakes(inputs, "classify") is None  # several labels: one found beside another is no mistake
    assert mistakes(inputs, "detect_change") is None  # not counted


def test_task_pictures_stand_beside_their_truth(inputs):
    assert task_pictures(inputs, "classify").name == "task-classify" and task_pictures(inputs, "embed") is None
    segment = task_pictures(inputs, "segment").blocks[0]
    assert [picture.lines for picture in segment.strips[0].pictures] == [("image",), ("truth",), ("prediction",)]
    assert segment.strips[0].note == "100.0 % of the pixels agree", "ignored pixels do not count"
    assert [swatch.label for swatch in segment.legend] == ["water", "forest", "field", "not scored"]
    change = task_pictures(inputs, "detect_change").blocks[0]
    assert [picture.lines[0] for picture in change.strips[0].pictures] == ["before", "after", "truth", "prediction"]
    assert change.strips[0].note == "0.0 % of the pixels agree"


def test_pictures_of_several_classes_name_all_of_them(inputs, task_files):
    with np.load(task_files["classify"]) as file:
        arrays = dict(file)
    arrays["truth"] = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8)
    arrays["prediction"] = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]], np.uint8)
    np.savez_compressed(task_files["classify"], **arrays)
    section = task_pictures(inputs, "classify")
    pictures = section.blocks[0].strips[0].pictures
    assert [picture.lines for picture in pictures] == [
        ("true: water, forest", "predicted: water, forest"),
        ("true: field", "predicted: forest, field"),
        ("true: none", "predicted: none"),
        ("true: water", "predicted: none"),
    ]
    assert [picture.badge for picture in pictures] == ["✓", "✗", "✓", "✗"]
    assert section.lead.endswith("2 correct in every class.")
    assert pictures[1].alt == "A test image of field; the model predicts forest, field"


def test_figures_without_words_of_their_own_are_shown_by_their_keys(inputs):
    tables = four_properties(inputs).blocks
    assert rows_of(tables[0]) == {"sensors": ("2",), "pairs: a+b": ("3",)}


def test_every_figure_of_the_four_properties_has_words_and_a_unit(inputs):
    measured = measure(inputs.images, inputs.sets)
    for name, figures in measured.items():
        assert set(figures) == set(PROPERTIES[name].measures), name
    measured = dict(sorted(measured.items()))  # as JSON is written
    sources, coverage, unified, heterogeneity = map(
        rows_of, four_properties(dataclasses.replace(inputs, four_properties=measured)).blocks
    )
    assert sources["sets of the kind grid"] == ("2",) and sources["sets with two sensors or more"] == ("100 %",)
    assert coverage["from south to north"] == ("33.40° S to 47.40° N",)
    assert coverage["months"] == ("Jan, Mar, May, Jul",)
    assert unified["images, registered"] == ("6",) and unified["shift applied, median"][0].endswith(" m")
    assert len(heterogeneity) == 5


def test_years_have_no_thousands(inputs):
    properties = {"coverage": {"years": [2020, 2023], "months": [1, 12], "pixels": 12_000, "seen": [0.25] * 13}}
    (table,) = four_properties(dataclasses.replace(inputs, four_properties=properties)).blocks
    assert rows_of(table) == {
        "years": ("2020, 2023",),
        "months": ("Jan, Dec",),
        "pixels": ("12,000",),
        "seen": (", ".join(["0.25"] * 12) + " … (13)",),
    }


def test_pruning_is_told_before_and_after_and_by_cluster(inputs):
    sides, clusters, reasons, settings = pruning(inputs).blocks
    assert rows_of(sides) == {
        "image sets": ("11", "7"),
        "balance of the clusters (normalised entropy; 1 is even)": ("0.684", "–"),
        "sets of the kind grid": ("10", "7"),
        "sets of the kind city": ("1", "–"),
    }
    before, after = json.loads(clusters.figure_json)["data"]
    assert (before["name"], before["x"], before["y"]) == ("before", ["001", "000"], [9, 2]), "the largest first"
    assert after["y"] == [5, 2] and "the largest had 9 and keeps 5" in clusters.alt
    assert rows_of(clusters.table) == {"001": ("9", "5", "0.5", "yes"), "000": ("2", "2", "0.25", "no")}
    assert rows_of(reasons)["cluster is full"] == ("4",) and rows_of(settings)["seed"] == ("2026",)
    none = {**inputs.prune_report, "clusters": {}}
    assert len(pruning(dataclasses.replace(inputs, prune_report=none)).blocks) == 3


def test_provenance_has_the_hashes(inputs):
    rows = rows_of(provenance(inputs).blocks[0])
    assert rows["image-set store, sha256 of its content"] == ("5e" * 32,)
    assert rows["model, data manifest hash"] == ("5e" * 32,)
    assert rows["simulation, seed"] == ("7",)


def test_numbers_that_were_not_measured_are_dashes():
    assert text.number(None) == text.number(float("nan")) == text.day(pd.NaT) == text.epoch_day(float("inf")) == "–"
    assert text.position(-70.65, -33.4) == "70.650° W, 33.400° S"
    assert text.listed(["a", "b", "c"]) == "a, b and c"


def test_ragged_tables_are_rejected():
    with pytest.raises(ValueError, match="2 columns, but a row has 1"):
        Table("x", ("a", "b"), (("1",),))
