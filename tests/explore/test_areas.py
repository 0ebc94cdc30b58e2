"""Areas corrected for the errors of a map, beside the published example and a second writing of its equations."""

from __future__ import annotations

import numpy as np
import pytest

from a2mae.explore.areas import NOTHING, PLACES, RANDOM, Z95, area_table, corrected_shares, stratified

NAMES = ["deforestation", "forest gain", "stable forest", "stable non-forest"]
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]], float)
"""Olofsson et al. (2014), table 8: mapped classes by rows."""
MAPPED_HA = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
WEIGHTS = MAPPED_HA / MAPPED_HA.sum()


def second_writing(counts, weights):
    """The same estimators sum by sum, as they are printed."""
    k = len(weights)
    n = [sum(counts[i]) for i in range(k)]
    p = [[weights[i] * counts[i][j] / n[i] for j in range(k)] for i in range(k)]
    area = [sum(p[i][j] for i in range(k)) for j in range(k)]
    error = [
        sum((weights[i] * p[i][j] - p[i][j] ** 2) / (n[i] - 1) for i in range(k)) ** 0.5 for j in range(k)
    ]  # fmt: skip
    users = [p[i][i] / sum(p[i]) for i in range(k)]
    producers = [p[j][j] / area[j] for j in range(k)]
    users_error = [(users[i] * (1 - users[i]) / (n[i] - 1)) ** 0.5 for i in range(k)]
    producers_error = []
    for j in range(k):
        own = weights[j] ** 2 * (1 - producers[j]) ** 2 * users[j] * (1 - users[j]) / (n[j] - 1)
        others = sum(
            weights[i] ** 2 * counts[i][j] / n[i] * (1 - counts[i][j] / n[i]) / (n[i] - 1) for i in range(k) if i != j
        )
        producers_error.append(((own + producers[j] ** 2 * others) / area[j] ** 2) ** 0.5)
    overall_error = sum(weights[i] ** 2 * users[i] * (1 - users[i]) / (n[i] - 1) for i in range(k)) ** 0.5
    return area, error, users, users_error, producers, producers_error, sum(p[i][i] for i in range(k)), overall_error


def test_the_published_example_comes_out():
    found = stratified(COUNTS, WEIGHTS)
    total = MAPPED_HA.sum()
    assert found.share[0] * total == pytest.approx(21_158, abs=1)
    assert Z95 * found.share_error[0] * total == pytest.approx(6_158, abs=1)
    np.testing.assert_allclose(found.share * total, [21_158, 11_686, 285_770, 581_386], atol=1)
    np.testing.assert_allclose(Z95 * found.share_error * total, [6_158, 3_756, 15_510, 16_282], atol=1)
    np.testing.assert_allclose(found.users, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(Z95 * found.users_error, [0.07, 0.10, 0.04, 0.02], atol=0.006)
    np.testing.assert_allclose(found.producers, [0.75, 0.85, 0.93, 0.96], atol=0.005)
    assert Z95 * found.producers_error[0] == pytest.approx(0.21, abs=0.005)
    assert found.overall == pytest.approx(0.95, abs=0.005)
    assert Z95 * found.overall_error == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_a_second_writing_says_the_same(seed):
    rng = np.random.default_rng(seed)
    counts, weights = rng.integers(1, 60, (5, 5)).astype(float), rng.dirichlet(np.ones(5))
    found = stratified(counts, weights)
    for ours, theirs in zip(
        (
            found.share, found.share_error, found.users, found.users_error, found.producers, found.producers_error,
            found.overall, found.overall_error,
        ),
        second_writing(counts, weights),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Points drawn within each mapped class, many times."""
    rng = np.random.default_rng(0)
    truth = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.02, 0.03, 0.95]])
    weights = np.array([0.1, 0.3, 0.6])
    held = []
    for _ in range(400):
        counts = np.stack([rng.multinomial(80, row) for row in truth]).astype(float)
        found = stratified(counts, weights)
        held.append(np.abs(found.share - weights @ truth) <= Z95 * found.share_error)
    assert 0.91 < np.mean(held) < 0.98


def test_a_random_sample_gives_an_interval_for_the_map():
    table = area_table(NAMES, MAPPED_HA * 10_000, reference=COUNTS)
    assert set(table["design"]) == {RANDOM}
    assert table["samples"].tolist() == [75, 75, 165, 325]
    first = table.iloc[0]
    assert (first["mapped_ha"], first["estimated_ha"]) == pytest.approx((18_000, 21_158), abs=1)
    assert (first["estimated_low_ha"], first["estimated_high_ha"]) == pytest.approx((15_000, 27_316), abs=2)


def test_test_places_are_called_what_they_are_and_have_an_interval_over_places():
    rng = np.random.default_rng(0)
    drawn = np.stack([COUNTS * rng.uniform(0.5, 1.5, COUNTS.shape) for _ in range(200)])
    table = area_table(NAMES, MAPPED_HA * 10_000, tested=COUNTS, drawn=drawn)
    assert set(table["design"]) == {PLACES}
    assert (table["estimated_low_ha"] < table["estimated_ha"]).all()
    assert (table["estimated_ha"] < table["estimated_high_ha"]).all()
    np.testing.assert_allclose(table["estimated_ha"].sum(), table["mapped_ha"].sum())
    alone = area_table(NAMES, MAPPED_HA * 10_000, tested=COUNTS)
    assert alone["estimated_low_ha"].isna().all(), "one place says nothing of others"


def test_what_was_never_tested_keeps_what_is_mapped():
    counts = COUNTS.copy()
    counts[0] = 0
    np.testing.assert_allclose(
        corrected_shares(counts, np.array([1.0, 0, 0, 0])), [1, 0, 0, 0]
    )  # nothing is known of its errors


def test_without_any_errors_known_only_the_map_speaks():
    table = area_table(NAMES, MAPPED_HA * 10_000)
    assert set(table["design"]) == {NOTHING}
    assert table["estimated_ha"].isna().all() and table["mapped_ha"].tolist() == MAPPED_HA.tolist()


def test_too_few_points_in_a_class_are_refused():
    counts = COUNTS.copy()
    counts[1] = [0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"mapped classes \[1\] have fewer than two reference points: draw at least"):
        stratified(counts, WEIGHTS)
