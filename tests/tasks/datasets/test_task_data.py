import dataclasses
import hashlib
import json
import tracemalloc

import numpy as np
import pytest

from a2mae.tasks.datasets.task_data import IGNORE, Sample, TaskData, TaskDataError
from a2mae.tasks.datasets.writer import SAMPLES_PER_SHARD, write_task_data
from a2mae.tasks.registry import Task
from helpers.task_samples import make_row, make_samples, make_spec, spec_for


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_values_without_a_label_in_test_are_refused_and_values_beyond_training_noted(tmp_path):
    samples = list(make_samples(Task.ESTIMATE, count=10))
    unknown = [
        dataclasses.replace(one, target=one.target * np.nan) if one.row["split"] == "test" else one for one in samples
    ]
    with pytest.raises(TaskDataError, match=r"every label of 'test' in the test split is unknown \(NaN or nodata\)"):
        write_task_data(tmp_path / "data", spec_for(Task.ESTIMATE), unknown)
    beyond = [dataclasses.replace(one, target=one.target + 5) if one.row["split"] == "test" else one for one in samples]
    write_task_data(tmp_path / "data", spec_for(Task.ESTIMATE), beyond)
    notes = TaskData(tmp_path / "data").spec.notes
    assert notes == ("tree height, m: 0 to 18 in training, 5 to 23 in test, and what lies beyond was never seen",)


@pytest.mark.parametrize("task", list(Task))
def test_what_is_written_is_read_back_in_physical_units(tmp_path, task):
    samples = list(make_samples(task))
    assert write_task_data(tmp_path / "data", spec_for(task), iter(samples)) == len(samples)
    data = TaskData(tmp_path / "data")
    assert data.spec == spec_for(task)
    assert data.samples["sample_id"].tolist() == [sample.row["sample_id"] for sample in samples]
    rows = np.array([7, 0, 29])  # any order
    read = data.read(rows)
    for got, target, row in zip(read.images, read.targets, rows, strict=True):
        np.testing.assert_allclose(got, samples[row].pixels * 1e-4 - 0.1, atol=1e-6)
        np.testing.assert_array_equal(target, samples[row].target)


def test_more_than_one_shard_and_the_same_bytes_twice(tmp_path):
    samples = list(make_samples(Task.CLASSIFY, count=SAMPLES_PER_SHARD + 44, size=8))
    for name in ("a", "b"):
        write_task_data(tmp_path / name, make_spec(), iter(samples))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    read = TaskData(tmp_path / "a").read(np.array([299, 255, 256]))
    for got, row in zip(read.images, (299, 255, 256), strict=True):
        np.testing.assert_allclose(got, samples[row].pixels * 1e-4 - 0.1, atol=1e-6)


@pytest.mark.parametrize(("order", "times"), [("stored", 3), ("any", 10)])
def test_many_rows_are_read_in_a_few_times_the_memory_that_they_take(tmp_path, order, times):
    """All samples are read to be kept in memory; with an index of eight bytes per value it took 45 times as much."""
    samples = list(make_samples(Task.SEGMENT, count=600, size=32))
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples))
    data = TaskData(tmp_path / "data")
    rows = np.arange(600) if order == "stored" else np.random.default_rng(0).permutation(600)
    tracemalloc.start()
    read = data.read_stored(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < times * (read.images.nbytes + read.valid.nbytes + read.targets.nbytes)
    np.testing.assert_array_equal(read.targets[7], samples[rows[7]].target)
    assert len(data.read_stored(np.empty(0, np.int64)).images) == 0


def test_invalid_pixels_are_zero_and_splits_are_rows(tmp_path):
    samples = list(make_samples(Task.SEGMENT))
    holes = np.ones((1, 32, 32), bool)
    holes[0, :4] = False
    samples[0] = dataclasses.replace(samples[0], valid=holes)
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples))
    data = TaskData(tmp_path / "data")
    read = data.read(np.array([0]))
    assert (read.images[0, 0, :, :4] == 0).all()
    assert (read.images[0, 0, :, 4:] != 0).all()
    assert (read.valid[0] == holes).all()
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [18, 6, 6]


def test_a_failed_write_leaves_the_old_data_whole(tmp_path):
    samples = list(make_samples(Task.SEGMENT))
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples))
    before = digest(tmp_path / "data")
    bad = dataclasses.replace(samples[3], target=np.full((32, 32), 7, np.uint8))
    with pytest.raises(TaskDataError, match=r"place-003.*labels \[7\] are outside the 3 classes"):
        write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter([*samples[:3], bad]))
    assert digest(tmp_path / "data") == before
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples))  # over the half-written one
    assert digest(tmp_path / "data") == before


def test_ignored_labels_are_allowed(tmp_path):
    samples = list(make_samples(Task.SEGMENT))
    samples[0] = dataclasses.replace(samples[0], target=np.full((32, 32), IGNORE, np.uint8))
    assert write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples)) == 30


def test_masks_of_another_size_are_refused(tmp_path):
    samples = list(make_samples(Task.SEGMENT))
    samples[4] = dataclasses.replace(samples[4], target=np.zeros((31, 32), np.uint8))
    with pytest.raises(TaskDataError, match=r"place-004.*one data set has one grid"):
        write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), iter(samples))


def test_a_place_in_two_splits_is_named(tmp_path):
    samples = list(make_samples(Task.CLASSIFY))
    samples[-1] = dataclasses.replace(samples[-1], row={**samples[-1].row, "place": "place-000"})
    with pytest.raises(TaskDataError, match=r"1 places are in more than one split.*place-000"):
        write_task_data(tmp_path / "data", make_spec(), iter(samples))


def test_a_class_that_training_never_saw_is_named(tmp_path):
    samples = [s for s in make_samples(Task.CLASSIFY) if s.row["split"] != "train" or s.row["label"] != 2]
    with pytest.raises(TaskDataError, match=r"classes in test that training never saw: water\. Give more samples"):
        write_task_data(tmp_path / "data", make_spec(), iter(samples))


def test_classes_with_few_training_samples_and_none_in_test_are_told(tmp_path, caplog):
    samples = list(make_samples(Task.CLASSIFY))
    forest = [s for s in samples if s.row["label"] == 1 and s.row["split"] == "train"]
    kept = [s for s in samples if s.row["label"] != 1] + forest[:1]
    with caplog.at_level("WARNING"):
        write_task_data(tmp_path / "data", make_spec(), iter(kept))
    assert TaskData(tmp_path / "data").spec.notes == (
        "fewer than 5 training samples of: forest (1)",
        "no test sample of: forest: without a score, and in no mean over classes",
    )
    assert [record.getMessage() for record in caplog.records] == [
        "classify: fewer than 5 training samples of: forest (1), so the model can hardly learn it"
    ]


def test_no_samples_and_no_test_split(tmp_path):
    with pytest.raises(TaskDataError, match="gave no samples"):
        write_task_data(tmp_path / "data", make_spec(), iter([]))
    training = [s for s in make_samples(Task.CLASSIFY) if s.row["split"] == "train"]
    with pytest.raises(TaskDataError, match="no samples in split 'test'"):
        write_task_data(tmp_path / "data", make_spec(), iter(training))


def test_absent_torn_and_foreign_data(tmp_path):
    with pytest.raises(TaskDataError, match="prepare_data"):
        TaskData(tmp_path / "nothing")
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY))
    table = TaskData(tmp_path / "data").samples
    table.iloc[:-1].to_parquet(tmp_path / "data" / "samples.parquet")
    with pytest.raises(TaskDataError, match="torn"):
        TaskData(tmp_path / "data")
    document = json.loads((tmp_path / "data" / "task.json").read_text())
    (tmp_path / "data" / "task.json").write_text(json.dumps({**document, "format_version": 99}))
    with pytest.raises(TaskDataError, match="format 99"):
        TaskData(tmp_path / "data")


def test_spec_refuses_what_cannot_be_meant():
    with pytest.raises(TaskDataError, match="unique"):
        make_spec(classes=("a", "a"))
    with pytest.raises(TaskDataError, match="2 to 254 classes"):
        make_spec(classes=("a",))
    with pytest.raises(TaskDataError, match=r"no band 'nir'; it has B04 \(red\)"):
        make_spec().band_index("nir")
    assert make_spec().band_index("red") == 0
    with pytest.raises(TaskDataError, match="1 colours for 3 classes"):
        dataclasses.replace(make_spec(), colors=((0, 0, 0),))


def test_mixed_band_counts_are_refused(tmp_path):
    samples = list(make_samples(Task.CLASSIFY))
    four = np.ones((1, 4, 32, 32), np.uint16)
    odd = Sample(four, np.ones((1, 32, 32), bool), np.array(0, np.uint8), make_row("odd", "train"))
    with pytest.raises(TaskDataError, match=r"'odd'.*one data set has one grid"):
        write_task_data(tmp_path / "data", make_spec(), iter([*samples, odd]))
