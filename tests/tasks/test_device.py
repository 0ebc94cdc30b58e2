"""The configuration, not the shell, says how many threads compute, because that decides the bytes."""

import os
import subprocess
import sys

import pytest
import torch
from threadpoolctl import threadpool_info

from a2mae.models import create_model
from a2mae.models.checkpoint import save_pretrained
from a2mae.parallel import cores
from a2mae.tasks.datasets.task_data import Task
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.device import computing
from helpers.checkout import ROOT
from helpers.task_samples import SENTINEL2, make_samples, spec_for

STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}

FINETUNE = """
import sys
from pathlib import Path
from a2mae.files import file_digest
from a2mae.tasks.finetune.finetuned import save_task_model
from a2mae.tasks.finetune.finetuned import finetune_start
from a2mae.tasks.parameters import TaskParameters
from a2mae.tasks.datasets.task_data import TaskData

folder = Path(sys.argv[1])
for threads in (1, 2):
    recipe = {"steps": 2, "batch_size": 4, "warmup_steps": 1}
    options = TaskParameters(task="segment", head="detail", device="cpu", threads=threads, finetune=recipe)
    out = folder / sys.argv[2] / str(threads)
    save_task_model(out, finetune_start(options, TaskData(folder / "data"), folder / "model", "pretrained"))
    sys.stdout.write(file_digest(out / "model.safetensors") + "\\n")
"""


@pytest.mark.timeout(1500)  # fifteen seconds of one core; a busy machine may take long
def test_the_callers_variable_does_not_decide_the_bytes(tmp_path):
    torch.manual_seed(0)
    model = create_model("a2mae_vit_tiny_patch8", depth=1, decoder_dim=32, decoder_depth=1)
    save_pretrained(model, tmp_path / "model", config={"normalization": STATISTICS})
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), make_samples(Task.SEGMENT, count=8, size=64))
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", FINETUNE, str(tmp_path), said],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": said},
            stdout=subprocess.PIPE,
            text=True,
        )
        for said in ("1", "2")
    ]
    digests = [job.communicate(timeout=1400)[0].split() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert digests[0] == digests[1]
    one, two = digests[0]
    assert one != two, "the number of threads decides bytes: were it otherwise, this test would show nothing"


def threads() -> set[int]:
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return {torch.get_num_threads(), *blas}


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_as_many_threads_as_asked_for_and_afterwards_as_before(asked):
    before = threads()
    with computing("cpu", asked) as device:
        assert device == torch.device("cpu") and threads() == {asked or cores()}
    assert threads() == before


def test_they_are_given_back_when_the_work_fails():
    before = threads()
    with pytest.raises(ZeroDivisionError), computing("auto", 3):
        raise ZeroDivisionError
    assert threads() == before
