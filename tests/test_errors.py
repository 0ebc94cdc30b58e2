"""Messages name the nearest of what there is; what is passed on holds no path of this machine."""

from a2mae.errors import did_you_mean, without_places


def test_the_nearest_name_is_asked_for_where_one_is_near():
    known = ("mae", "scale_mae", "a2mae")
    assert did_you_mean("scale-mae", known) == "did you mean 'scale_mae'? "
    assert did_you_mean("resnet", known) == ""
    assert did_you_mean("resnet", known, always=True).startswith("did you mean ")
    assert did_you_mean("x", (), always=True) == ""


def test_configuration_loses_absolute_paths_only():
    given = {"a": "/home/x/scenes", "b": ["C:\\data\\y", "rel/z", 3], "c": {"d": "https://host/p"}}
    assert without_places(given) == {"a": "…/scenes", "b": ["…/y", "rel/z", 3], "c": {"d": "https://host/p"}}
