"""Messages name the nearest of what there is; what is passed on holds no path of this machine."""

from a2mae.errors import InputError, RejectedError, bounded, did_you_mean, plain_text, without_places


def test_the_nearest_name_is_asked_for_where_one_is_near():
    known = ("mae", "scale_mae", "a2mae")
    assert did_you_mean("scale-mae", known) == "did you mean 'scale_mae'? "
    assert did_you_mean("resnet", known) == ""
    assert did_you_mean("resnet", known, always=True).startswith("did you mean ")
    assert did_you_mean("x", (), always=True) == ""


def test_configuration_loses_absolute_paths_only():
    given = {"a": "/home/x/scenes", "b": ["C:\\data\\y", "rel/z", 3], "c": {"d": "https://host/p"}}
    assert without_places(given) == {"a": "…/scenes", "b": ["…/y", "rel/z", 3], "c": {"d": "https://host/p"}}


def test_no_message_steers_the_terminal_that_shows_it():
    evil = "a\x1b[31m\x07\r\u202eb\ud800\x9b"
    assert plain_text(evil) == "a?[31m???b??" and plain_text("wäld\n\tfoot‑path \u200c") == "wäld\n\tfoot‑path \u200c"
    assert str(InputError(evil)) == RejectedError("x", evil).detail == plain_text(evil)


def test_no_message_is_as_long_as_the_name_that_it_quotes():
    name = "9" * 100_000
    said = RejectedError("unknown_sensor", f"unknown sensor '{name}'. Known: naip. Add your own").detail
    assert (
        len(said) < 1500 and said.startswith("unknown sensor '99") and said.endswith("99'. Known: naip. Add your own")
    )
    assert len(str(InputError(f"feature 0: value is '{name}', expected a number"))) < 1500
    problems = "\n".join(f"file {k}: {'x' * 90}" for k in range(100))
    assert bounded(problems) == problems and str(InputError(problems)) == problems
