"""Groups of samples: read, joined by the names that a sample goes by, and what is wrong with them."""

import pandas as pd
import pytest

from a2mae.tasks.datasets.groups import grouped, read_groups
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.metrics.groups import scores_by_group
from a2mae.tasks.registry import Task
from helpers.task_samples import make_samples, spec_for

KEY = "segment.data.groups"


def table(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns none; it needs 'name'"),
        (b"name,event\nb\xff,c", "is not in UTF-8 but in an ANSI code page"),
        ("name,event\na,b,c\n", "line 2 has 3 cells, and the first line names 2 columns"),
        ("file,event\na,b\n", "has the columns 'file', 'event'; it needs 'name', of images or places, and one or more"),
        ("name\na\n", "has the columns 'name'; it needs 'name'"),
        ("name,split\na,b\n", "has a column 'split', which samples have already: call it otherwise"),
        ("name,year\na,b\n", "has a column 'year', which samples have already"),
        ("name,\na,b\n", "line 2: column 2 holds text and has no name"),
        ("name,event\na,b\na ,c\n", "names 'a' twice"),
        ("name,event\na,b\na,c\n", "names 'a' twice: keep one line for each"),
    ],
)
def test_what_is_no_table_of_groups_is_named(tmp_path, text, message):
    with pytest.raises(TaskDataError, match=message):
        read_groups(table(tmp_path, text), KEY)


def test_a_sample_goes_by_its_own_name_its_images_and_its_places():
    samples = pd.DataFrame(
        {
            "sample_id": ["train/flood_1-0-64", "test/b/flood_2", "c", "lost"],
            "place": ["p1", "p2", "valley", "p4"],
        }
    )
    groups = pd.DataFrame({"event": ["one", "two", "three"]}, index=["flood_1", "flood_2", "valley"])
    joined, notes = grouped(samples, groups, KEY)
    assert joined["event"].tolist() == ["one", "two", "three", ""]
    assert notes == (f"in no line of {KEY}, so in no score by group: 1 sample: lost",)
    with pytest.raises(
        TaskDataError, match=r"no sample is in the table: it names 'x' …, and samples are 'train/flood_1"
    ):
        grouped(samples, pd.DataFrame({"event": ["one"]}, index=["x"]), KEY)


def test_scores_of_groups_have_the_worst_first_and_those_without_labels_none(tmp_path):
    lines = [f"place-{index:03d},{'good' if index % 2 else 'bad'},same" for index in range(30)]
    groups = read_groups(table(tmp_path, "\n".join(["name,event,region", *lines])), KEY)
    samples = list(make_samples(Task.SEGMENT))
    for number, sample in enumerate(samples):
        sample.row["day"] = 19_000.0 + 400 * (number % 3)
    write_task_data(tmp_path / "data", spec_for(Task.SEGMENT), samples, groups=groups)
    data = TaskData(tmp_path / "data")
    rows = data.rows("test")
    prediction = data.read_targets(rows).copy()
    is_bad = (data.samples["event"].iloc[rows] == "bad").to_numpy()
    prediction[is_bad] = 0
    found = scores_by_group(data, rows, prediction, resamples=100, seed=0)
    assert list(found) == ["year", "event"], "one region alone tells nothing"
    assert [part["group"] for part in found["event"]] == ["bad", "good"]
    bad, good = found["event"]
    assert bad["value"] < good["value"] == 1 and bad["metric"] == "miou" and bad["n"] + good["n"] == len(rows)
    assert bad["low"] <= bad["value"] <= bad["high"]
    assert sorted(part["group"] for part in found["year"]) == ["2022", "2023", "2024"]
    values = [part["value"] for part in found["year"]]
    assert values == sorted(values)
