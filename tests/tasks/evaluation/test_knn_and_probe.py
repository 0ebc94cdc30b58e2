import math

import numpy as np
import torch

from a2mae.tasks.evaluation.frozen import knn_predict, linear_probe


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
