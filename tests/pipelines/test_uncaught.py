"""An error ends with its sentence where there is one, and with its calls where there is none."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from kedro.io.core import DatasetError
from pydantic import BaseModel

from a2mae.pipelines.uncaught import TRACEBACK_VARIABLE, meant_to_be_read, show_sentences
from a2mae.remote.verify import UnknownChecksumError
from a2mae.sensors import get_sensor
from a2mae.tasks.finetune.losses import TaskLoss, dice_loss

ROOT = Path(__file__).parents[2]


class Setting(BaseModel):
    steps: int


def raised(make: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        make()
    return caught.value


def wrapped(make: Callable[[], object]) -> BaseException:
    def load() -> None:
        try:
            make()
        except Exception as error:
            raise DatasetError(f"Failed while loading: {error}") from error

    return raised(load)


SENTENCES = [
    lambda: get_sensor("sentinel-9"),
    lambda: TaskLoss("hinge"),
    lambda: Setting(steps="many"),
    lambda: yaml.safe_load("a: !!python/name:os.system {}"),
]
DEFECTS = [
    lambda: dice_loss(None, None),  # an attribute that None lacks
    lambda: {}["key"],
    lambda: np.zeros(2) + np.zeros(3),  # a ValueError, raised by no sentence of ours
    lambda: TaskLoss("dice")(np.zeros(2), np.zeros(2)),
]


@pytest.mark.parametrize("make", SENTENCES)
def test_what_was_raised_to_be_read_is_known(make: Callable[[], object]) -> None:
    assert meant_to_be_read(raised(make))
    assert meant_to_be_read(wrapped(make)), "a dataset hid it"


@pytest.mark.parametrize("make", DEFECTS)
def test_a_defect_shows_its_calls(make: Callable[[], object]) -> None:
    assert not meant_to_be_read(raised(make))
    assert not meant_to_be_read(wrapped(make)), "a dataset hid it"


def test_being_stopped_is_no_error_of_anyones() -> None:
    assert not meant_to_be_read(KeyboardInterrupt())
    assert not meant_to_be_read(UnknownChecksumError("never raised"))


def test_what_a_dataset_raised_is_said_without_the_words_around_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", lambda *_: pytest.fail("all calls were shown"))
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    show_sentences()
    error = wrapped(lambda: TaskLoss("hinge"))
    sys.excepthook(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert (
        said.startswith(f"\n{type(error.__cause__).__name__}: {error.__cause__}\n")
        and inspect.getfile(TaskLoss) in said
    )
    assert "Failed while" not in said


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "empty").mkdir(exist_ok=True)
    command = ["run", "--env=real_samples", "--pipelines=ingest", f"--params=ingest.folder={folder / 'empty'}"]
    around = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "WANDB_MODE": "offline", "WANDB_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *command],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        env={**around, **environment},
    )


def test_a_run_ends_with_the_sentence_alone(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert said[-2].startswith("InputError: ingest.folder: ") and said[-2].endswith("point it at a folder of GeoTIFFs")
    assert said[-1].endswith(f"{TRACEBACK_VARIABLE}=1 shows all calls)")
    assert "Traceback" not in done.stderr + done.stdout and "site-packages" not in done.stderr + done.stdout


def test_all_calls_can_be_asked_for(tmp_path: Path) -> None:
    done = run(tmp_path, **{TRACEBACK_VARIABLE: "1", "WANDB_MODE": "disabled"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "point it at a folder of GeoTIFFs" in done.stderr
