"""`a2mae init`: a folder becomes an environment, its scene table and a picture; nothing is overwritten or guessed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from pydantic import ValidationError

from a2mae.commands import main
from a2mae.commands.dialogue import show
from a2mae.commands.environment import flow, plain, read_group
from a2mae.commands.project import find_project, make_project
from a2mae.errors import InputError, plain_text
from a2mae.remote.policy import HrefPolicy
from a2mae.stssd.ingest.checks import Found
from a2mae.stssd.ingest.folder_files import walk
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.stssd.recognise.recognise import recognise
from a2mae.tasks.parameters import EmbedParameters
from helpers.access import as_anybody, shared_folder
from helpers.checkout import ROOT
from helpers.class_pictures import two_classes
from helpers.deliveries import write
from helpers.terminal import typing


def naip(folder, dates=("20150926", "20200831")):
    for date in dates:
        write(folder / f"m_4709963_se_14_1_{date}.tif", bands=4, gsd=5, dtype="uint8", low=20, high=230)
    return folder


def group(project, name="mine"):
    return yaml.safe_load((project / f"conf/{name}/parameters_ingest.yml").read_text())["ingest"]


def test_a_folder_becomes_an_environment_a_scene_table_and_a_picture(project, tmp_path, capsys):
    assert main(["init", str(naip(tmp_path / "in")), "--yes", "--name", "farm"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert re.search(r"2 scenes accepted, \d places of 480 m", said) and "kedro run --env=farm" in said
    assert "sure  bands" in said and "ASKED" not in said
    scenes = pd.read_parquet(project / "data/farm/02_intermediate/scenes.parquet")
    assert set(scenes["sensor"]) == {"naip-5m"} and set(scenes["status"]) == {"accepted"}
    with Image.open(project / "data/farm/08_reporting/scenes.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.std() > 10
    assert sorted(path.name for path in (project / "conf/farm").iterdir()) == [
        "catalog_ingest.yml", "globals.yml", "parameters_chain.yml", "parameters_coregister.yml",
        "parameters_embed.yml", "parameters_ingest.yml", "parameters_pretrain.yml", "parameters_report.yml",
    ]  # fmt: skip
    embed = yaml.safe_load((project / "conf/farm/parameters_embed.yml").read_text())["embed"]
    assert EmbedParameters(**embed).sensor == "naip-5m", "`kedro run --pipelines=embed` looked for Sentinel-2"
    # A second time it says that nothing would change; after a new product, what would.
    assert main(["init", str(tmp_path / "in"), "--yes", "--name", "farm"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in (project / "conf/farm").iterdir()}
    write(tmp_path / "in/air_20210601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    assert main(["init", str(tmp_path / "in"), "--yes", "--name", "farm"]) == 1
    shown = capsys.readouterr()
    assert "+  - name: air" in shown.out and "-    footprint_m" not in shown.err and "left as it is" in shown.err
    assert {path.name: path.read_bytes() for path in (project / "conf/farm").iterdir()} == before


def test_what_is_not_known_is_marked_and_refused_by_name(project, tmp_path, capsys):
    write(tmp_path / "in/flight_20210601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    assert main(["init", str(tmp_path / "in"), "--yes"]) == 0
    said = capsys.readouterr().out
    assert "2 lines of conf/mine/parameters_ingest.yml to be stated" in said and "flight: sensor" in said
    assert not (project / "data").exists(), "ingest was not run"
    assert [group(project)["rules"][0][key] for key in ("sensor", "bands")] == ["???", "???"]
    with pytest.raises(ValidationError, match=r"'flight': still to be stated in place of \?\?\?: 'sensor' .*; 'bands'"):
        IngestParameters(**group(project))


def test_what_is_stated_in_place_of_a_mark_completes_the_environment(project, tmp_path, capsys):
    for day in ("20210601", "20220601"):
        write(tmp_path / f"in/flight_{day}.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    words = ["init", str(tmp_path / "in"), "--yes"]
    assert main(words) == 0
    assert "state them, then give this command again" in capsys.readouterr().out
    path = project / "conf/mine/parameters_ingest.yml"
    path.write_text(path.read_text().replace("sensor: ???", "sensor: my-drone"))
    assert main(words) == 0
    assert "1 line of conf/mine/parameters_ingest.yml to be stated" in capsys.readouterr().out
    path.write_text(path.read_text().replace("bands: ???", "bands: [red, green, blue, nir]"))
    assert main(words) == 0, capsys.readouterr().err
    assert "2 scenes accepted" in capsys.readouterr().out
    assert [sensor["id"] for sensor in group(project)["sensors"]] == ["my-drone"]
    assert group(project)["rules"][0]["bands"] == ["red", "green", "blue", "nir"]


def test_a_known_sensor_at_a_pixel_size_of_its_own_completes_it_too(project, tmp_path, capsys):
    """What is written then has other names than what was stated: of the sensor at 5 m, and of its bands."""
    for day in ("2021.06.01", "2022.06.01"):
        write(tmp_path / f"in/flug-{day}.tif", bands=4, gsd=5, dtype="uint8", low=5, high=250)
    words = ["init", str(tmp_path / "in"), "--yes"]
    assert main(words) == 0
    path = project / "conf/mine/parameters_ingest.yml"
    stated = path.read_text().replace("sensor: ???", "sensor: naip")
    path.write_text(stated.replace("bands: ???", "bands: [red, green, blue, nir]"))
    capsys.readouterr()
    assert main(words) == 0, capsys.readouterr().err
    assert "2 scenes accepted" in capsys.readouterr().out
    (rule,) = group(project)["rules"]
    assert (rule["sensor"], rule["bands"]) == ("naip-5m", ["B3", "B2", "B1", "B4"])
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_what_was_changed_besides_the_marks_is_kept(project, tmp_path, capsys):
    write(tmp_path / "in/flight_20210601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    words = ["init", str(tmp_path / "in"), "--yes"]
    assert main(words) == 0
    path = project / "conf/mine/parameters_ingest.yml"
    path.write_text(path.read_text().replace("sensor: ???", "sensor: my-drone").replace("nodata: none", "nodata: 7"))
    before = path.read_bytes()
    assert main(words) == 1
    assert "left as it is" in capsys.readouterr().err and path.read_bytes() == before


def test_what_may_not_be_read_is_told_and_counted(capsys):
    with shared_folder() as folder:
        for name in (
            "a/flight_20210601.tif",
            "a/flight_20220601.tif",
            "b/flight_20230601.tif",
            "c/flight_20240601.tif",
        ):
            write(folder / "in" / name, bands=4, gsd=1, dtype="uint8", low=5, high=250)
        for name in ("b", "c", "a/flight_20220601.tif"):
            (folder / "in" / name).chmod(0)
        with as_anybody():
            found = recognise(folder / "in")
            ingested = Found()
            names = list(walk(folder / "in", HrefPolicy(frozenset({"file"}), (folder,)), ingested))
        show(found, found.products)
        said = capsys.readouterr().out
        assert [product.paths for product in found.products] == [("a/flight_20210601.tif",)]
        assert "2 times, first b: the folder cannot be read (Permission denied)" in said
        assert "a/flight_20220601.tif: cannot be opened: [Errno 13] Permission denied" in said
        assert names == ["a/flight_20210601.tif", "a/flight_20220601.tif"]
        assert [(one.scene_id, one.reason) for one in ingested.rejected] == [("b", "unreadable"), ("c", "unreadable")]
        for path, told in (
            (folder / "in/b", "b cannot be read (Permission denied)"),
            (folder / "in/b/below", "below cannot be read (Permission denied)"),
        ):
            with as_anybody(), pytest.raises(InputError) as refused:
                recognise(path)
            assert told in str(refused.value)


def test_links_out_of_the_folder_are_told_as_ingest_would_refuse_them(tmp_path):
    write(tmp_path / "elsewhere/b.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/flight_20210601.tif").symlink_to(tmp_path / "elsewhere/b.tif")
    with pytest.raises(InputError, match=r"flight_20210601.tif: a link out of the folder, to .*elsewhere/b.tif"):
        recognise(tmp_path / "in")
    write(tmp_path / "in/real/flight_20220601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    (tmp_path / "in/flight_20230601.tif").symlink_to("real/flight_20220601.tif")
    found = recognise(tmp_path / "in")
    assert [path for product in found.products for path in product.paths] == [
        "flight_20230601.tif", "real/flight_20220601.tif",
    ]  # fmt: skip
    assert any("flight_20210601.tif: a link out of the folder" in note for note in found.notes)


def test_a_terminal_is_asked_until_the_answer_is_one(project, tmp_path, monkeypatch, capsys):
    write(tmp_path / "in/flight_a.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    write(tmp_path / "in/flight_b.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    asked = typing(monkeypatch, "My Drone", "my-drone", "red, green", "", "yesterday", "2021-06-01")
    assert main(["init", str(tmp_path / "in")]) == 0, capsys.readouterr().err
    assert asked == ["sensor:", "sensor:", "bands [red, green, blue, nir]:", "bands [red, green, blue, nir]:",
                     "datetime:", "datetime:"]  # fmt: skip
    said = capsys.readouterr().out
    for told in ("'My Drone' is no sensor", "the file has 4 bands, and 2 are named", "'yesterday' is no date"):
        assert told in said
    assert "2 scenes accepted" in said
    (rule,) = group(project)["rules"]
    assert rule["sensor"] == "my-drone" and rule["bands"] == ["red", "green", "blue", "nir"]
    assert group(project)["sensors"][0]["id"] == "my-drone"
    # What was stated is known to the next run.
    assert main(["init", str(tmp_path / "in"), "--yes"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_product_can_be_left_out_and_a_question_be_left_for_later(project, tmp_path, monkeypatch, capsys):
    naip(tmp_path / "in")
    write(tmp_path / "in/flight_20210601.tif", bands=4, gsd=1, dtype="uint8", low=5, high=250)
    typing(monkeypatch, "out")
    assert main(["init", str(tmp_path / "in")]) == 0, capsys.readouterr().err
    assert {"files": "flight_{date}.tif", "why": "left out when a2mae init asked"} in group(project)["exclude"]
    typing(monkeypatch, "later", "later")
    assert main(["init", str(tmp_path / "in"), "--name", "other"]) == 0
    assert group(project, "other")["rules"][1]["sensor"] == "???"


def test_where_it_cannot_begin_a_sentence_says_why(project, tmp_path, capsys):
    naip(tmp_path / "in")
    for words, told in (
        ([str(tmp_path / "in")], "there is no terminal to ask at: add --yes"),
        ([str(tmp_path / "in"), "--yes", "--name", "base"], "an environment's name is small letters"),
        ([str(tmp_path / "nowhere"), "--yes"], "is not there: name a folder of scenes"),
    ):
        assert main(["init", *words]) == 1
        said = capsys.readouterr().err
        assert said.startswith("a2mae: ") and told in said and said.count("\n") == 1


def test_where_nothing_can_be_used_nothing_is_written(project, tmp_path, capsys):
    write(tmp_path / "in/x_20210601.tif", bands=3, crs=None)
    assert main(["init", str(tmp_path / "in"), "--yes"]) == 1
    assert "1 file cannot be used, the first x_20210601.tif has no" in capsys.readouterr().err
    assert not (project / "conf/mine").exists()


def test_what_ingest_refuses_is_told_in_its_sentence(project, tmp_path, capsys):
    naip(tmp_path / "in", dates=("20150926",))
    write(tmp_path / "in/m_4709964_se_14_1_20150926.tif", bands=4, gsd=5, dtype="uint8", low=20, high=230, left=900_000)
    (project / "conf/base/parameters_ingest.yml").write_text("ingest:\n  max_cloud_cover: 3\n")
    assert main(["init", str(tmp_path / "in"), "--yes"]) == 1
    assert "unknown parameter 'max_cloud_cover': did you mean 'max_cloud_cover_pct'" in capsys.readouterr().err


def test_outside_a_project_one_is_made(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    assert main(["init", str(naip(tmp_path / "in")), "--yes"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "lies in no project; one is made here" in said and "2 scenes accepted" in said
    assert {path.name for path in folder.iterdir()} - {".viz"} == {
        ".gitignore", ".telemetry", "README.md", "conf", "data", "pyproject.toml",
    }  # fmt: skip
    assert find_project(folder / "conf") == folder
    for path in sorted((ROOT / "conf/base").iterdir()):
        assert (folder / "conf/base" / path.name).read_bytes() == path.read_bytes()


def test_a_project_is_not_made_where_it_would_be_in_the_way(tmp_path):
    naip(tmp_path / "in")
    for folder in (tmp_path / "in", tmp_path / "in/below"):
        with pytest.raises(InputError, match="holds the scenes themselves"):
            make_project(folder, tmp_path / "in")
    (tmp_path / "README.md").write_text("of something else")
    with pytest.raises(InputError, match=r"README\.md is in the way: go to an empty folder"):
        make_project(tmp_path, tmp_path / "in")
    (tmp_path / "pyproject.toml").write_text("[tool")
    with pytest.raises(InputError, match="is no TOML"):
        find_project(tmp_path)


def test_pictures_without_a_place_become_a_model_and_what_it_is_worth(project, tmp_path, capsys, monkeypatch):
    pictures = two_classes(tmp_path / "set", 60, ".jpg")
    (pictures / "notes.txt").write_text("by hand")
    assert main(["init", str(pictures), "--yes", "--name", "land"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "120 pictures without a place" in said and "kedro run --env=land" in said and "2 classes" in said
    assert "gdal_edit" not in said, "nobody asks for a place that pictures do not have"
    assert main(["check", "--env", "land"]) == 0
    told = capsys.readouterr().out
    assert "120, of all splits" in told and "1,000 steps of 96 samples of 1 image, 800.0 times every picture" in told
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    small = "pretrain.optimizer.steps=4,pretrain.optimizer.batch_size=8,pretrain.sampling.image_size=32"
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--env=land", f"--params={small},evaluate.bootstrap=100"],
        cwd=project, env={**os.environ, "WANDB_MODE": "disabled"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    sets = pd.read_parquet(project / "data/land/04_feature/pruned_sets.parquet")
    metrics = json.loads((project / "data/land/06_models/pretrain/metrics.json").read_text())
    assert metrics["step"] == 4 and metrics["held_out_loss"] > 0
    scores = pd.read_parquet(project / "data/land/08_reporting/scores.parquet")
    assert set(scores["model"]) == {"pretrained", "random", "rcf", "statistics", "histogram", "pixels"}
    page = (project / "data/land/08_reporting/report.html").read_text("utf-8")
    learned = int((sets["split"] == "train").sum())
    assert f"120 pictures: {learned} to learn from" in page and "Co-registration" not in page
    assert main(["init", str(pictures), "--yes", "--name", "land"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    (project / "conf/land/parameters_pictures.yml").write_text("pictures:\n  folder: elsewhere\n")
    assert main(["init", str(pictures), "--yes", "--name", "land"]) == 1
    assert "is left as it is" in capsys.readouterr().err


def test_pictures_below_a_folder_of_any_name_are_pictures(project, tmp_path, capsys):
    """A name that would steer the terminal is shown otherwise in the reason by which pictures are told from scenes."""
    folder = two_classes(tmp_path / "a\x1b[31m\nb", 12)
    assert main(["init", str(folder), "--name", "odd", "--yes"]) == 0, capsys.readouterr().err
    stated = yaml.safe_load((project / "conf/odd/parameters_pictures.yml").read_text())
    assert stated["pictures"]["folder"] == str(folder)


def test_masks_among_pictures_are_no_pictures(project, tmp_path, capsys):
    for name in ("images", "masks"):
        two_classes(tmp_path / "set" / name, 20, ".png")
        for path in (tmp_path / "set" / name).rglob("*.png"):
            path.rename(tmp_path / "set" / name / path.name)
    assert main(["init", str(tmp_path / "set"), "--yes"]) == 1
    assert "holds labels beside pictures" in capsys.readouterr().err
    assert not (project / "conf/mine").exists()


@example("${a}")
@example("a\x85b")
@given(
    st.text(
        alphabet=st.sampled_from("ab: #'\"\\{}[]$?-!&*%@`|>~,\n\r\t\x0b\x1c\x85\u2028\x07\ufeff09.eE+_é😀"), max_size=8
    )
)
def test_any_text_of_a_file_reads_back_from_the_environment(text):
    """Values and keys, behind a comment and inside a list; a line break stays the one that it is."""
    written = f"a:\n  k: {flow(text)}   # {plain(text)}\n  l: {flow([text, {text: text}])}\n"
    read = OmegaConf.to_container(OmegaConf.load(io.StringIO(written)), resolve=True)
    assert read == {"a": {"k": text, "l": [text, {text: text}]}}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\tb", "a\x1b[31mb", "{name}", "é😀"])
def test_a_project_is_made_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    make_project(folder, tmp_path / "scenes")
    stated = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["kedro"]
    assert stated["project_name"] == plain_text(name)
    assert find_project(folder) == folder


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~nobody-of-this-name/scenes", "is not there"),
        ("", "is an empty path: write . for the folder that one stands in"),
        (" ", "is an empty path"),
        ("/tmp/a\0b", "has a zero byte"),
        ("/tmp/\udcff", "has bytes in its name that are no UTF-8"),
        ("https:/example.org/x", "is an address"),
    ],
)
@pytest.mark.parametrize("command", ["init", "labels"])
def test_a_path_that_names_nothing_is_told_in_a_sentence(project, capsys, command, path, told):
    (project / "conf" / "mine").mkdir(parents=True, exist_ok=True)
    try:
        assert main([command, path, "--yes"]) == 1
    except SystemExit:  # argparse has read the argument
        pass
    assert told in " ".join(capsys.readouterr().err.split())


def test_an_environment_nested_beyond_reason_and_odd_tools_are_told(project, tmp_path, capsys):
    with pytest.raises(InputError, match="is no YAML"):
        (tmp_path / "deep.yml").write_text("a: " + "[" * 3000)
        read_group(tmp_path / "deep.yml")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyproject.toml").write_text("tool = 3")
    assert find_project(tmp_path / "other") is None
