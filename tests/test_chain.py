"""The whole chain, small, as a user runs it: no network, nothing left that git sees, one W&B run per stage."""

import os
import re
import socket
import subprocess

import pytest
import yaml

from a2mae.provenance import lock as dvc_lock
from helpers.checkout import ROOT, changes, checkout, run
from helpers.configuration import DEMO, laid_over
from helpers.wandb_runs import find_runs, read_run


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A checkout after `kedro run`, and the log of forbidden sockets."""
    folder = tmp_path_factory.mktemp("chain")
    clone = checkout(folder / "clone")
    tiny_by_commit(clone)
    log = folder / "sockets.log"
    done = run(
        clone, "kedro", "run", socket_log=log, timeout=2400
    )  # two minutes of one core; a busy machine may take long
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return clone, log


def tiny_by_commit(clone) -> None:
    """Make the small chain the committed one: `dvc repro` sees nothing else."""
    for group, values in yaml.safe_load((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8")).items():
        path = clone / f"conf/base/parameters_{group}.yml"
        path.write_text(yaml.safe_dump({group: laid_over(yaml.safe_load(path.read_text("utf-8"))[group], values)}))
    (clone / "dvc.lock").unlink()
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "tiny"], cwd=clone, check=True
    )


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_needs_no_network_and_tries_none(chain):
    clone, log = chain
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
    page = (clone / "data/08_reporting/report.html").read_text("utf-8")
    assert 'id="scores"' in page and 'id="registration-truth"' in page and str(clone) not in page


@pytest.mark.slow
def test_leaves_nothing_that_git_sees(chain):
    assert changes(chain[0]) == ""


@pytest.mark.slow
def test_its_archive_is_searched_by_a_command(chain):
    clone, _ = chain
    done = run(clone, "a2mae", "search", "data/found", "--point", "12.30", "51.90", "--top", "3", "--exclude-m", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 hits" in done.stdout and "similarity.tif" in done.stdout and "contact_sheet.png" in done.stdout
    again = run(clone, "a2mae", "search", "data/found", "--point", "12.30", "51.90")
    assert (again.returncode, again.stdout) == (1, "") and "is there already" in again.stderr
    stranger = run(clone, "a2mae", "search", "data/other", "--point", "12.30", "51.90", "--env", "bse")
    assert stranger.returncode == 1 and "has no environment 'bse'" in stranger.stderr


WATCHED = {stage for stage in DEMO if stage != "simulate"}


@pytest.mark.slow
def test_one_wandb_run_per_stage_linked_in_one_group(chain):
    clone, _ = chain
    runs = {found.run.job_type: found for found in (read_run(path) for path in find_runs(clone))}
    assert set(runs) == WATCHED
    assert len({found.run.run_group for found in runs.values()}) == 1
    for name, found in runs.items():
        assert found.config, name
        assert name == "pretrain" or found.made, name
        private(found.everything, clone)
    for name in ("pretrain", "classify", "segment", "detect_change"):
        assert runs[name].history, name
    assert (
        runs["coregister"].made["image_sets"] == runs["tag"].used["image_sets"] == runs["pretrain"].used["image_sets"]
    )
    model = runs["pretrain"].made["pretrained_model"]
    assert model == runs["classify"].used["pretrained_model"] == runs["evaluate"].used["pretrained_model"]
    assert runs["evaluate"].made["scores"] == runs["report"].used["scores"]
    assert any(key.startswith("cpu") for found in runs.values() for key in found.stats)
    assert list(clone.rglob("media/images/image_sets_*.png")) and list(clone.rglob("media/images/segment.map_*.png"))
    assert list(clone.rglob("media/table/scores_*.json"))


@pytest.mark.slow
def test_lineage_leads_from_the_scores_to_the_scenes(chain):
    clone, _ = chain
    done = run(clone, "python", "-m", "a2mae.lineage", "data/06_models/pretrain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "08_reporting/scores.parquet" in done.stdout and "CHANGED" not in done.stdout
    for model in ("pretrain", "classify", "classify_random", "segment", "detect_change"):
        assert (clone / "data/06_models" / model / "lineage.json").is_file(), model


@pytest.mark.slow
@pytest.mark.timeout(3600)  # four minutes of one core; a busy machine may take long
def test_the_other_door_and_another_shell_write_the_same_bytes(chain, tmp_path):
    """`dvc repro` of the same commit elsewhere, from a shell that says another number of threads."""
    first, _ = chain
    clone = tmp_path / "elsewhere/clone"
    subprocess.run(["git", "clone", "--quiet", str(first), str(clone)], check=True)
    done = run(clone, "dvc", "repro", threads=2, timeout=3500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = list(dvc_lock.verdicts(first, (clone / "dvc.lock").read_text("utf-8")))
    assert {verdict.stage for verdict in found} == set(DEMO) and all(verdict.outputs for verdict in found)
    assert {verdict.stage: verdict for verdict in found if not verdict.same} == {}


def private(text: str, clone) -> None:
    """Nothing that tells whose machine it was."""
    secrets = [value for name, value in os.environ.items() if "KEY" in name or "TOKEN" in name or "SECRET" in name]
    for word in (str(clone), "/home/", "/tmp/", "/root", *filter(None, secrets)):
        assert word not in text, word
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_scenes_to_locations_need_no_network(tmp_path):
    """The quick form: the first stages, in every process they start."""
    clone = checkout(tmp_path / "clone")
    (clone / "conf/local/parameters_tiny.yml").write_text((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8"))
    log = tmp_path / "sockets.log"
    done = run(clone, "kedro", "run", "--pipelines=simulate,ingest", socket_log=log, timeout=250)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
    assert (clone / "data/02_intermediate/scenes.parquet").exists()
    assert changes(clone) == ""
    checked = run(clone, "python", "-m", "a2mae.lineage", "data/02_intermediate/scenes.parquet")
    assert checked.returncode == 0 and "made by ingest" in checked.stdout, checked.stdout + checked.stderr
    (found,) = (read_run(path) for path in find_runs(clone))
    assert found.run.job_type == "ingest" and found.run.run_group.startswith("chain-")
    assert "scenes" in found.made and "simulation" in found.used
    private(found.everything, clone)
