"""From a score back to the source scenes: each hash is verified, one changed byte of any kind is found and named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from a2mae import lineage as command
from a2mae.models.checkpoint import load_encoder, save_pretrained
from a2mae.models.registry import create_model
from a2mae.provenance import check as checking
from a2mae.provenance.check import check
from a2mae.provenance.record import (
    Artifact,
    ChangedInputError,
    LineageError,
    read_input,
    read_record,
    read_sealed,
    record,
    record_path,
)
from helpers.built_world import write_store
from helpers.task_samples import SENTINEL2


def read(root: Path, inputs: dict[str, str]) -> dict[str, Artifact]:
    found = {name: read_input(root, name, path, None) for name, path in inputs.items()}
    return {name: artifact for name, artifact in found.items() if artifact is not None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A chain on disk as the stages leave it: scenes, tables, store, model, scores, and the record of each node."""
    root = tmp_path_factory.mktemp("project") / "data"
    scene = root.parent / "scenes" / "one.tif"
    scene.parent.mkdir(parents=True)
    scene.write_bytes(b"a scene's pixels")
    (root / "02").mkdir(parents=True)
    scenes = pd.DataFrame({"scene_id": ["one"], "assets": [json.dumps([{"href": str(scene)}, {"href": str(scene)}])]})
    paths = {name: str(root / place) for name, place in PLACES.items()}

    def ran(node: str, stage: str, inputs: list[str], outputs: list[str], **more) -> None:
        chosen = [{name: paths[name] for name in names} for names in (inputs, outputs)]
        record(
            root,
            node,
            f"a2mae.pipelines.{stage}",
            stage=stage,
            inputs=read(root, chosen[0]),
            outputs=chosen[1],
            parameters={stage: {"folder": "/home/somebody/x", "seed": 3}},
            **more,
        )

    scenes.to_parquet(paths["scenes"])
    ran("ingest", "ingest", [], ["scenes"], scenes=scenes)
    image = (np.full((len(SENTINEL2.bands), 16, 16), 7, np.uint16), np.ones((16, 16), bool))
    store = write_store(root / "stssd.zarr", {SENTINEL2.id: [image, image]})
    ran("coregister", "coregister", ["scenes"], ["image_sets"])
    model = create_model("a2mae_vit_tiny_patch8", embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1)
    save_pretrained(model, root / "models/pretrain", config={"data_manifest_hash": store.manifest_hash})
    (root / "models/pretrain/metrics.json").write_text('{"loss": 0.5}\n')
    ran("pretrain", "pretrain", ["image_sets"], ["pretrained_model"])
    Path(paths["scores"]).write_text('{"top1": 0.75}\n')
    ran("evaluate", "evaluate", ["pretrained_model"], ["scores"])
    return root


PLACES = {
    "scenes": "02/scenes.parquet",
    "image_sets": "stssd.zarr",
    "pretrained_model": "models/pretrain",
    "scores": "scores.json",
}


@pytest.fixture
def project(finished, tmp_path) -> Path:
    shutil.copytree(finished.parent, tmp_path / "project")
    return tmp_path / "project/data"


def flip(path: Path) -> None:
    """Change one bit of the last byte but one."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def said(target: Path, capsys) -> tuple[int, str]:
    code = command.main([str(target)])
    return code, capsys.readouterr().out


def test_the_chain_leads_from_the_score_to_the_source_scenes(project, capsys):
    code, text = said(project / "models/pretrain", capsys)
    assert code == 0, text
    made = [line.split(" (")[0].split()[-1] for line in text.splitlines() if "made by" in line]
    assert made == ["evaluate", "pretrain", "coregister", "ingest"]
    assert "source scenes: 1 files ok" in text and "CHANGED" not in text
    assert said(project / "scores.json", capsys)[0] == 0


SHARD = "stssd.zarr/sentinel-2-l2a"
KINDS = {
    "source scene": ("../scenes/one.tif", "scenes/one.tif"),
    "table": ("02/scenes.parquet", "02/scenes.parquet"),
    "store's description": ("stssd.zarr/zarr.json", "zarr.json is changed"),
    "store's manifest": ("stssd.zarr/manifest.json", "manifest.json is changed"),
    "weights": ("models/pretrain/model.safetensors", "model.safetensors"),
    "configuration": ("models/pretrain/config.json", "config.json"),
    "metrics": ("models/pretrain/metrics.json", "metrics.json"),
    "what the model says of itself": ("models/pretrain/lineage.json", "lineage.json"),
    "score": ("scores.json", "scores.json"),
    "record": ("lineage/pretrain.json", "lineage/pretrain.json"),
    "first record": ("lineage/ingest.json", "lineage/ingest.json"),
    "list of sources": ("lineage/sources.json", "lineage/sources.json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_is_found_and_named(project, capsys, kind):
    path, name = KINDS[kind]
    flip(project / path)
    code, text = said(project / "models/pretrain", capsys)
    assert code == 1
    assert any(("CHANGED" in line) and name in line for line in text.splitlines()), text


MAKERS = {"scenes": "ingest", "image_sets": "coregister", "pretrained_model": "pretrain", "scores": "evaluate"}


@pytest.mark.parametrize("name", PLACES)
def test_a_stage_reads_what_the_stage_before_has_written_or_says_which_byte_is_not(project, name):
    path = project / PLACES[name]
    assert read_input(project, name, str(path), MAKERS[name]) is not None
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in [one for one in files if "/c/" not in str(one)]:  # a shard is compared when it is read from
        whole = file.read_bytes()
        for damaged in (b"", whole[:-1], whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]):
            file.write_bytes(damaged)
            made_by = MAKERS[name]
            told = rf"{path.name} \('{name}'\) is not what the stage {made_by} has written.*--pipelines={made_by}"
            with pytest.raises(ChangedInputError, match=told) as error:
                read_input(project, name, str(path), MAKERS[name])
            assert file.name in str(error.value)
        file.write_bytes(whole)
    file.write_bytes(b"{}")
    (project / "lineage" / f"{MAKERS[name]}.json").unlink()  # changed on purpose
    assert read_input(project, name, str(path), MAKERS[name]) is not None


def test_every_shard_of_the_store_is_read(project, capsys):
    shards = [path for path in (project / SHARD).rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert shards
    flip(shards[0])
    code, text = said(project / "models/pretrain", capsys)
    assert code == 1 and f"{shards[0].relative_to(project / 'stssd.zarr')} is changed" in text


def test_changed_code_is_named(project, capsys, tmp_path, monkeypatch):
    source = tmp_path / "src"
    shutil.copytree(checking.SOURCE / "a2mae", source / "a2mae", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(checking, "SOURCE", source)
    assert said(project / "models/pretrain", capsys)[0] == 0
    flip(source / "a2mae/models/layers/masking.py")
    code, text = said(project / "models/pretrain", capsys)
    assert code == 1 and "CHANGED   code a2mae/models/layers/masking.py" in text


def test_a_model_made_from_another_store_is_named(project, capsys):
    """All files are whole, but the store was built again after the training."""
    (project / "stssd.zarr/manifest.json").write_text("{}")
    paths = {name: str(project / place) for name, place in PLACES.items()}
    record(
        project,
        "coregister",
        "a2mae.pipelines.coregister",
        stage="coregister",
        inputs=read(project, {"scenes": paths["scenes"]}),
        outputs={"image_sets": paths["image_sets"]},
        parameters={},
    )
    code, text = said(project / "models/pretrain", capsys)
    assert code == 1 and "pretrain read" in text and "coregister has since written" in text


def test_a_lost_file_and_an_added_one_are_named(project, capsys):
    (project / "models/pretrain/metrics.json").unlink()
    (project / "models/pretrain/extra.bin").write_bytes(b"x")
    shutil.rmtree(project.parent / "scenes")
    code, text = said(project / "models/pretrain", capsys)
    assert code == 1
    assert "metrics.json is gone" in text and "extra.bin is new" in text and "MISSING   ../scenes" in text


def test_a_model_alone_is_checked_by_what_it_carries(project, tmp_path, capsys):
    sent = tmp_path / "sent/model"
    shutil.copytree(project / "models/pretrain", sent)
    code, text = said(sent, capsys)
    assert code == 0 and "only the model itself could be checked" in text
    load_encoder(sent)
    flip(sent / "model.safetensors")
    code, text = said(sent, capsys)
    assert code == 1 and "CHANGED   model: model.safetensors is changed" in text


def test_a_model_directory_carries_code_configuration_data_and_environment(project):
    found = read_sealed(project / "models/pretrain/lineage.json")
    config = json.loads((project / "models/pretrain/config.json").read_text())
    assert found["data_manifest_hash"] == config["data_manifest_hash"] is not None
    assert {"commit", "files"} <= found["code"].keys() and "a2mae/models/layers/masking.py" in found["code"]["files"]
    assert found["parameters"]["pretrain"]["seed"] == 3
    assert {"python", "torch", "numpy", "cpu_capability"} <= found["environment"].keys()
    assert found["inputs"]["image_sets"]["sha256"]
    assert "somebody" not in json.dumps(found) and str(project) not in json.dumps(found)


def test_the_same_work_leaves_the_same_bytes(finished, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "elsewhere")
    again = tmp_path / "elsewhere/data"
    before = (again / "lineage/pretrain.json").read_bytes()
    made = read_record(again / "lineage/pretrain.json")
    record(
        again,
        "pretrain",
        "a2mae.pipelines.pretrain",
        stage="pretrain",
        inputs=read(again, {"image_sets": str(again / "stssd.zarr")}),
        outputs={"pretrained_model": str(again / "models/pretrain")},
        parameters=made.parameters,
    )
    assert (again / "lineage/pretrain.json").read_bytes() == before


def test_an_input_that_is_handed_on_by_name_alone_need_not_be_there(tmp_path):
    """Where nothing is simulated, ingest is given the simulation's folder all the same."""
    made = tmp_path / "scenes.parquet"
    made.write_bytes(b"x")
    inputs, outputs = {"simulation_folder": str(tmp_path / "none")}, {"scenes": str(made)}
    stage, module = "ingest", "a2mae.pipelines.ingest"
    found = record(
        tmp_path, "ingest", module, stage=stage, inputs=read(tmp_path, inputs), outputs=outputs, parameters={}
    )
    assert found.inputs == {}


def test_a_changed_byte_of_the_users_own_labels_is_named(project, capsys):
    labels = project.parent / "labels"
    for name in ("forest/1.tif", "water/1.tif"):
        (labels / name).parent.mkdir(parents=True)
        (labels / name).write_bytes(b"some pixels")
    named = {"classify.data.folder": str(labels), "classify.map.raster": "s3://bucket/scene.tif"}
    inputs, outputs = {"scores": str(project / "scores.json")}, {"data": str(project / "task.json")}
    (project / "task.json").write_text("{}")
    made = record(
        project,
        "classify.prepare_data",
        "a2mae.pipelines.tasks",
        stage="classify",
        inputs=read(project, inputs),
        outputs=outputs,
        parameters={},
        named=named,
    )
    assert made.inputs["classify.map.raster"].sha256 is None
    assert said(project / "task.json", capsys)[0] == 0
    flip(labels / "water/1.tif")
    code, text = said(project / "task.json", capsys)
    assert code == 1 and "../labels" in text and "water/1.tif is changed" in text


def test_what_nobody_recorded_is_an_error_that_lists_what_is(project, capsys):
    (project / "note.txt").write_text("x")
    assert command.main([str(project / "note.txt")]) == 2
    assert "no record says what made note.txt; there are records of 02/scenes.parquet" in capsys.readouterr().err
    with pytest.raises(LineageError, match="no folder 'lineage'"):
        check(project.parents[2] / "nowhere.txt")


def test_a_folder_with_names_that_are_no_text_is_recorded(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff\xfe.tif")).write_bytes(b"x")
    record(
        tmp_path, "a", "a2mae.files", stage="a", inputs={}, outputs={"out": str(folder)}, parameters={},
        named={"a.raster": str(folder)},
    )  # fmt: skip
    made = read_record(record_path(tmp_path, "a"))
    assert list(made.outputs["out"].files) == ["\udcff\udcfe.tif"]
    assert read_input(tmp_path, "out", str(folder), "a") == made.outputs["out"]
