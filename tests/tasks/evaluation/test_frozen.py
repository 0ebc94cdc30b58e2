"""kNN and probes: the published vote, and what they score of features that can and cannot tell classes apart."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from a2mae.tasks.datasets.inputs import TaskInputs, plan_inputs
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.features import histogram_features, pixel_features
from a2mae.tasks.evaluation.frozen import (
    Candidate,
    alike,
    evaluate_frozen,
    knn_predict,
    linear_probe,
    standardised,
)
from a2mae.tasks.metrics.scores import SCORE_COLUMNS, paired_rows, score_table
from a2mae.tasks.registry import Task
from helpers.evaluation import CPU, OPTIONS, STATISTICS
from helpers.task_samples import make_samples, spec_for


def brute_force(bank, labels, query, classes, *, k, temperature):
    out = []
    for q in query:
        similarities = [float(torch.dot(q, b) / (q.norm() * b.norm())) for b in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -similarities[i])[:k]
        votes = [0.0] * classes
        for i in nearest:
            votes[int(labels[i])] += math.exp(similarities[i] / temperature)
        out.append(votes.index(max(votes)))
    return out


def test_knn_is_the_published_vote():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(60, 5, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    query = torch.randn(30, 5, generator=generator)
    expected = brute_force(bank, labels, query, 4, k=20, temperature=0.07)
    assert knn_predict(bank, labels, query, 4, chunk=7).tolist() == expected


def test_knn_with_fewer_samples_than_k():
    bank, labels = torch.eye(3), torch.arange(3)
    assert knn_predict(bank, labels, bank * 5, 3).tolist() == [0, 1, 2]


def test_probe_separates_what_is_linear_and_chooses_on_validation():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = (np.eye(3)[labels] * 2 + rng.normal(size=(600, 3)) * 0.5).astype(np.float32)
    features = np.hstack([features, rng.normal(size=(600, 40)).astype(np.float32)])
    features[:, 0] *= 1e4  # a badly scaled dimension must not matter
    result = linear_probe(features[:60], labels[:60], features[60:160], labels[60:160], features[160:])
    assert np.mean(result.prediction == labels[160:]) > 0.85
    scores = {
        c: linear_probe(
            features[:60], labels[:60], features[60:160], labels[60:160], features[160:], c_grid=(c,)
        ).validation_accuracy
        for c in (0.01, 0.1, 1.0, 10.0)
    }
    assert result.validation_accuracy == max(scores.values()) == scores[result.c]


def test_protocols_score_what_is_separable_and_only_that(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)
    rows = pd.DataFrame(evaluate_frozen(Candidate("histogram", histogram_features), inputs, OPTIONS, CPU))
    assert set(rows.columns) == {*SCORE_COLUMNS, "drawn"}
    assert rows["mode"].value_counts().to_dict() == {
        "knn": 4, "knn_standardised": 4, "few_shot": 4, "linear_probe": 1, "search": 1,
    }  # fmt: skip
    assert rows[rows["mode"] != "few_shot"]["value"].min() > 0.95  # three covers of different colour
    assert sorted(rows[rows["mode"] == "knn"]["gsd_m"].unique()) == [10.0, 40.0]
    noise = {}

    def random_vectors(batch):
        return torch.randn(len(batch.images), 8, generator=noise.setdefault("g", torch.Generator().manual_seed(0)))

    chance = pd.DataFrame(evaluate_frozen(Candidate("noise", random_vectors), inputs, OPTIONS, CPU))
    assert chance["value"].max() < 0.8
    assert abs(chance["value"].mean() - 1 / 3) < 0.15


def test_hits_of_a_search_are_of_other_places():
    """Each image has one of its own place beside it, of its class; the next are of the other class."""
    features = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.1], [0.0, 1.0], [0.0, 0.9], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    places = np.array(["a", "a", "b", "c", "c", "d"], object)
    found = alike(features, features, labels=(labels, labels), places=(places, places), k=2)
    second = [
        sum(
            int(labels[other] == labels[one])
            for other in sorted(
                (n for n in range(6) if places[n] != places[one]),
                key=lambda n: -float(torch.nn.functional.cosine_similarity(features[one], features[n], dim=0)),
            )[:2]
        )
        for one in range(6)
    ]
    assert found.tolist() == second
    alone = alike(features[:1], features[:2], labels=(labels[:1], labels[:2]), places=(places[:1], places[:2]))
    assert alone.tolist() == [0]


def test_a_constant_part_that_drowns_the_vote_is_taken_out_by_standardising(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)

    def drowned(batch):
        """A dimension that tells the classes, one that is constant and one of noise as large as the signal is small."""
        signal = batch.images[:, 0].mean((-1, -2)) * 1e-3
        noise = torch.linspace(-1, 1, len(signal))[:, None].flip(0) * (signal[:, :1] * 1e4).sin()
        return torch.cat([signal, noise * 1e-2, torch.full((len(signal), 1), 5.0)], dim=1)

    only = OPTIONS.model_copy(update={"shots": (), "relative_gsd": (1.0,)})
    table = pd.DataFrame(evaluate_frozen(Candidate("drowned", drowned), inputs, only, CPU))
    value = table.groupby("mode")["value"].mean()
    assert value["knn_standardised"] > value["knn"] + 0.2
    bank = torch.randn(50, 3) * torch.tensor([1.0, 9.0, 0.0]) + 4
    scaled, query = standardised(bank, bank[:5])
    torch.testing.assert_close(scaled[:5], query)
    torch.testing.assert_close(scaled[:, :2].std(0), torch.ones(2))
    assert torch.isfinite(scaled).all()


def test_of_several_ways_to_read_an_encoder_validation_chooses(data, caplog):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)

    def two_parts(batch):
        """Noise, then what tells the classes apart."""
        generator = torch.Generator().manual_seed(len(batch.images))
        return torch.cat([torch.randn(len(batch.images), 3, generator=generator), batch.images[:, 0].mean((-1, -2))], 1)

    readouts = {"noise": slice(0, 1), "signal": slice(1, 2)}
    caplog.set_level("INFO")
    only = OPTIONS.model_copy(update={"shots": (), "relative_gsd": (1.0,)})
    both = pd.DataFrame(evaluate_frozen(Candidate("both", two_parts, 1, 2, readouts), inputs, only, CPU))
    assert "both on test: read signal (kNN on validation: noise 0." in caplog.text
    plain = pd.DataFrame(
        evaluate_frozen(Candidate("both", lambda batch: two_parts(batch)[:, 3:].contiguous()), inputs, only, CPU)
    )
    pd.testing.assert_frame_equal(both, plain)


def test_differences_of_two_candidates_are_paired_over_places(data):
    plan = plan_inputs(data, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    inputs = TaskInputs(data, plan)

    generator = torch.Generator().manual_seed(0)

    def noise(batch):
        return torch.randn(len(batch.images), 8, generator=generator)

    rows = evaluate_frozen(Candidate("pretrained", histogram_features), inputs, OPTIONS, CPU)
    rows += evaluate_frozen(Candidate("random", noise), inputs, OPTIONS, CPU)
    table = score_table([*rows, *paired_rows(rows, "pretrained", "random")])
    scores, gains = table[table["over"] == ""], table[table["over"] == "random"]
    assert set(gains["mode"]) == {
        "knn_gain", "knn_standardised_gain", "linear_probe_gain", "few_shot_gain", "search_gain",
    }  # fmt: skip
    assert len(gains) == len(scores[scores["model"] == "random"])
    for gain in gains.itertuples():
        same = scores[(scores["mode"] == gain.mode.removesuffix("_gain")) & (scores["metric"] == gain.metric)]
        same = same[(same["gsd_m"] == gain.gsd_m) & (same["seed"] == gain.seed)].set_index("model")["value"]
        assert gain.value == pytest.approx(same["pretrained"] - same["random"])
        assert gain.low <= gain.value <= gain.high and gain.value > 0
    # A candidate over itself: no difference and no width, however uncertain its score is.
    same = paired_rows(rows, "random", "random")
    assert {(row["value"], row["low"], row["high"]) for row in same} == {(0.0, 0.0, 0.0)}


def test_change_data_is_refused(tmp_path):
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), make_samples(Task.SEGMENT))
    segment = TaskData(tmp_path / "data")
    plan = plan_inputs(segment, ("red", "green", "blue"), STATISTICS, bands_per_view=3)
    with pytest.raises(TaskDataError, match="evaluate needs classification data, found segment"):
        evaluate_frozen(Candidate("pixels", pixel_features), TaskInputs(segment, plan), OPTIONS, CPU)
