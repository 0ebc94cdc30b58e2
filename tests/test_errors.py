"""What is passed on holds no path of this machine."""

from a2mae.errors import without_places


def test_configuration_loses_absolute_paths_only():
    given = {"a": "/home/x/scenes", "b": ["C:\\data\\y", "rel/z", 3], "c": {"d": "https://host/p"}}
    assert without_places(given) == {"a": "…/scenes", "b": ["…/y", "rel/z", 3], "c": {"d": "https://host/p"}}
