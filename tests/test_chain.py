"""The whole chain, small, as a user runs it: no network, nothing left that git sees, one W&B run per training."""

import pytest

from helpers.checkout import ROOT, changes, checkout, run
from helpers.wandb_runs import find_runs, read_run


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A checkout after `kedro run`, and the log of forbidden sockets."""
    folder = tmp_path_factory.mktemp("chain")
    clone = checkout(folder / "clone")
    (clone / "conf/local/parameters_tiny.yml").write_text((ROOT / "tests/helpers/tiny_chain.yml").read_text("utf-8"))
    log = folder / "sockets.log"
    done = run(clone, "kedro", "run", socket_log=log, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return clone, log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_needs_no_network_and_tries_none(chain):
    clone, log = chain
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
    page = (clone / "data/08_reporting/report.html").read_text("utf-8")
    assert 'id="scores"' in page and 'id="registration-truth"' in page and str(clone) not in page


@pytest.mark.slow
def test_leaves_nothing_that_git_sees(chain):
    assert changes(chain[0]) == ""


@pytest.mark.slow
def test_one_wandb_run_for_pretraining_and_one_per_task(chain):
    runs = [read_run(path) for path in find_runs(chain[0])]
    assert sorted(found.run.job_type for found in runs) == ["classify", "detect_change", "pretrain", "segment"]
    for found in runs:
        assert found.history and found.config, found.run.job_type
        assert str(chain[0]) not in found.everything and "/home/" not in found.everything


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
