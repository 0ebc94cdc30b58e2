"""Tables that people write: what is no table is named with its line, and nothing of a line is lost."""

from __future__ import annotations

import csv
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2mae.tasks.datasets.task_data import TaskDataError
from a2mae.tasks.datasets.text_tables import read_table, utf8_text


def test_a_table_is_read_with_quotes_empty_lines_and_short_ones(tmp_path):
    (tmp_path / "a.csv").write_bytes('\ufefflon,lat,class\r\n1,2,"wood, wet"\r\n\r\n3,4\r\n'.encode())
    columns, rows, lines = read_table(tmp_path / "a.csv", [("x",), ("lon", "lat")])
    assert columns == ["lon", "lat", "class"]
    assert rows == [{"lon": "1", "lat": "2", "class": "wood, wet"}, {"lon": "3", "lat": "4", "class": ""}]
    assert lines == [2, 4]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("lon,lat\n1,2\n1,2,3\n", "line 3 has 3 cells, and the first line names 2 columns"),
        ('lon,lat\n"1,2\n3,4\n', "is no line of comma-separated text .*quotation mark that is not closed"),
        ("lon,lat,lon\n1,2,3\n", "has two columns 'lon'"),
        ("lon;lat\n1;2\n", "needed are lon and lat, in degrees; they are separated by ';'"),
        ("", "has the columns none; needed are lon and lat"),
        ("lon,lat\n1," + "9" * 200_000 + "\n", "line 2 is no line of comma-separated text"),
        ("lon,lat\n1,2\n".encode("utf-16"), "in UTF-16"),
        ("lon,lat,ä\n".encode("latin-1"), "ANSI code page"),
        (b"lon,lat\n\0,1\n", "UTF-16"),
        ("lon\tlat\n1\t2\n", "separated by tabulators, save it with commas"),
        ("lon,lat,\n1,2,x\n", "line 2: column 3 holds text and has no name"),
    ],
)
def test_what_is_no_table_is_told_in_a_sentence(tmp_path, content, told):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TaskDataError, match=told):
        read_table(tmp_path / "a.csv", [("lon", "lat")], ", in degrees")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(OSError, match="no regular file"):
        utf8_text(tmp_path / "a.csv")


def test_spaces_around_names_and_empty_columns_without_one_are_no_part_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("lon, lat ,,\n\n1,2,,\n")
    assert read_table(tmp_path / "a.csv", [("lon", "lat")]) == (["lon", "lat"], [{"lon": "1", "lat": "2"}], [3])


@given(st.lists(st.lists(st.text(alphabet='a,;"\n \t', max_size=4), min_size=2, max_size=2), max_size=5))
def test_every_cell_that_is_written_is_read_on_the_line_that_it_ends_on(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["x", "y"])
        ends = []
        for row in rows:
            writer.writerow(row)
            file.flush()
            ends.append(path.read_bytes().count(b"\n"))
    assert read_table(path) == (["x", "y"], [dict(zip("xy", row, strict=True)) for row in rows], ends)
