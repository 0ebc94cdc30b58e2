"""Metrics grow by whole lines and go on where a run was stopped, the bar behaves in a pipe, and collapse is seen."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from training_runs import make_spec

from a2mae.models import create_model
from a2mae.training.data.loader import SampleReader
from a2mae.training.monitor import HeldOut, MetricsFile, ProgressBar, feature_statistics, read_metrics

COLUMNS = ("step", "loss", "rank")


def test_a_resumed_record_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    rows = [{"step": step, "loss": 1 / step, "rank": None if step % 2 else 0.1 + 0.2} for step in range(1, 7)]
    record = MetricsFile(whole, COLUMNS, resume_at=0)
    for row in rows:
        record.append(row)
    record = MetricsFile(broken, COLUMNS, resume_at=0)
    for row in rows[:5]:
        record.append(row)
    with broken.open("a") as file:
        file.write("6,0.1")  # killed while it wrote
    record = MetricsFile(broken, COLUMNS, resume_at=3)
    for row in rows[3:]:
        record.append(row)
    assert broken.read_bytes() == whole.read_bytes()
    assert float(read_metrics(whole)[1]["rank"]) == 0.1 + 0.2


def test_a_fresh_start_drops_old_rows(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "a.csv", COLUMNS, resume_at=0).append({"step": 1, "loss": 1.0})
    MetricsFile(tmp_path / "a.csv", COLUMNS, resume_at=0)
    assert read_metrics(tmp_path / "a.csv") == []


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no column lss"):
        MetricsFile(tmp_path / "a.csv", COLUMNS, resume_at=0).append({"step": 1, "lss": 1.0})


def test_in_a_pipe_there_are_ten_lines_not_a_thousand(caplog, capsys) -> None:
    with caplog.at_level(logging.INFO):
        progress = ProgressBar(1000, 0, shown=True)
        for step in range(1, 1001):
            progress.update(step, 0.5)
        progress.close()
    assert len(caplog.records) == 10
    assert "step 1000 of 1000, loss 0.5000" in caplog.text
    assert "\r" not in capsys.readouterr().err


def test_effective_rank_counts_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0]
    weights = torch.linalg.qr(torch.randn(200, 5, generator=generator))[0]
    assert feature_statistics(weights @ basis[:5]).effective_rank == pytest.approx(5, abs=0.1)
    line = torch.randn(200, 1, generator=generator) @ basis[:1]
    assert feature_statistics(line).effective_rank == pytest.approx(1, abs=1e-4)
    spread = feature_statistics(torch.randn(4000, 64, generator=generator))
    assert spread.effective_rank > 60 and spread.feature_std == pytest.approx(1, abs=0.02)


def test_collapsed_features_are_seen() -> None:
    collapsed = torch.ones(50, 16) + 1e-9 * torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    assert feature_statistics(collapsed).feature_std < 1e-6


@pytest.fixture
def held_out(tmp_path: Path, store) -> HeldOut:
    reader = SampleReader(tmp_path, make_spec(tmp_path, store))
    return HeldOut(reader, reader.tables(), sets=8, images=100)


def test_the_held_out_sets_are_fixed_whole_and_in_colour(held_out: HeldOut, tmp_path: Path, store) -> None:
    assert not held_out.from_training and held_out.positions.tolist() == [6, 7]
    batch = held_out.batch()
    assert batch.pixels.shape == (2, 3, 3, 32, 32)
    assert torch.equal(batch.gsd_m, torch.full((2, 3), 480 / 32))
    red_green_blue = [[665.0, 560.0, 492.0], [655.0, 561.0, 482.0]]
    assert all(waves in red_green_blue for waves in batch.wavelength_nm.flatten(0, 1).tolist())
    reader = SampleReader(tmp_path, make_spec(tmp_path, store))
    again = HeldOut(reader, reader.tables(), sets=8, images=100).batch()
    assert torch.equal(again.pixels, batch.pixels)


def test_the_loss_is_a_function_of_the_weights_alone(held_out: HeldOut, tmp_path: Path, store) -> None:
    torch.manual_seed(0)
    spec = make_spec(tmp_path / "again", store)
    model = create_model(spec.model.name, **spec.model_options).eval()
    assert held_out.loss(model, 3) == held_out.loss(model, 3) != held_out.loss(model, 4)
    assert held_out.features(model).shape == (8, 64)


def test_same_place_accuracy_asks_the_nearest_other_image(held_out: HeldOut) -> None:
    place = held_out._location
    perfect = torch.nn.functional.one_hot(place - place.min(), 8).float()
    assert held_out.same_place_accuracy(perfect) == 1.0
    swapped = torch.eye(8)[(torch.arange(8) + 4) % 8] + torch.eye(8)  # the nearest is of the other place
    assert held_out.same_place_accuracy(swapped) == 0.0
