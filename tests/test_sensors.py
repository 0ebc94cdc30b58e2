"""Sensors: the built-in ones, and those that users describe."""

import dataclasses
import hashlib
import json

import pytest

from a2mae.sensors import BUILTIN_SENSORS, sensor_from_dict


@pytest.fixture
def description():
    return dataclasses.asdict(BUILTIN_SENSORS["naip"])


BEFORE = "0e3d6054d3847bfa67f9e4eb4de7895bc9d864bff72699c5acd750b35f4f42b5"


def test_the_built_in_sensors_are_what_stores_were_written_with():
    """Their numbers, to the digit, are in stores and fingerprints: with another digest all of them are built anew."""
    text = json.dumps({sensor_id: sensor.to_dict() for sensor_id, sensor in BUILTIN_SENSORS.items()}, sort_keys=True)
    assert len(BUILTIN_SENSORS) == 10
    assert hashlib.sha256(text.encode()).hexdigest() == BEFORE


def test_a_description_is_read_back(description):
    assert sensor_from_dict(description) == BUILTIN_SENSORS["naip"]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("bands", {"commonname": "red"}, "unknown key 'commonname'; did you mean 'common_name'"),
        ("encoding", {"scael": 1.0}, "unknown key 'scael'; did you mean 'scale'"),
    ],
)
def test_a_mistyped_key_is_named(description, part, change, said):
    where = description["bands"][0] if part == "bands" else description["encoding"]
    where |= change
    with pytest.raises(ValueError, match=f"sensor description 'naip' cannot be read: {said}"):
        sensor_from_dict(description)


def test_a_missing_key_is_named(description):
    del description["gsd_m"]
    with pytest.raises(ValueError, match="missing key 'gsd_m'"):
        sensor_from_dict(description)
