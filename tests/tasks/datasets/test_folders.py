from a2mae.tasks.datasets.splits import split_of


def test_split_is_by_name_alone_and_in_proportion():
    names = [f"Forest/Forest_{number}" for number in range(5000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert 0.18 < splits.count("test") / 5000 < 0.22
    assert 0.08 < splits.count("val") / 5000 < 0.12
