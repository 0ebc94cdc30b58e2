"""Messages name the nearest of what there is; what is passed on holds no path of this machine."""

import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a2mae.errors import (
    InputError,
    RejectedError,
    bounded,
    did_you_mean,
    plain_text,
    without_places,
    without_secrets,
    without_users,
)
from a2mae.remote.policy import redact
from a2mae.stssd.ingest.stac import _to_record


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


SCHEMES = ("http", "https", "HTTPS", "s3", "ftp", "gs", "abfs")
WORDS = st.text("abcXYZ019" + string.punctuation.replace("@", ""), max_size=20)
USERS = WORDS.map(lambda word: word.translate(str.maketrans("", "", "/?#")).lstrip("\\"))


@given(scheme=st.sampled_from(SCHEMES), slashes=st.integers(0, 4), user=USERS, password=WORDS)
@example(scheme="https", slashes=0, user="user", password="")
@example(scheme="https", slashes=1, user="u", password="/:?#\"'\\")
def test_no_password_of_an_address_is_left_however_it_is_written(scheme, slashes, user, password):
    secret = f"{user}:1{password}7geheim"
    start = scheme + ":" + "/" * slashes
    address = f"{start}{secret}@host/a.tif"
    shown = f"{start}host/a.tif"
    assert without_secrets(address) == redact(address) == shown
    assert without_secrets(f"found {address} in b@c") == f"found {shown} in b@c"
    assert without_users(f"{address}?x=1", "***@") == f"{start}***@host/a.tif?x=1"
    assert "geheim" not in str(InputError(f"'{address}' is none")) + RejectedError("x", address).detail
    assert "geheim" not in str(without_places([address]))
    recorded = _to_record({"id": "a", address: [{"href": address}]})
    assert recorded == {"id": "a", f"{start}***@host/a.tif": [{"href": f"{start}***@host/a.tif"}]}


@pytest.mark.parametrize("slashes", range(5))
def test_no_query_of_an_address_is_left(slashes):
    address = f"https:{'/' * slashes}host/a.tif?sig=geheim x=geheim#geheim"
    assert redact(address) == f"https:{'/' * slashes}host/a.tif"
    assert without_secrets(address.partition(" ")[0]) == redact(address)


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30 a@b, write to x@y.org or mailto:x@y.org",
        "https://host/items/a@2x.tif",
        "https://host:8080/a.tif",
        "s3://bucket/a@b.tif",
        "C:/data/a@b?.tif",
        "data/a?b#c@d.tif",
        "tags:a@b",
    ],
)
def test_what_holds_no_secret_stays(text):
    assert without_secrets(text) == text


def test_secrets_are_looked_for_in_no_time_however_long_a_text_is():
    start = time.monotonic()
    for text in ("http:" * 200_000 + "@", "@" + "http:a/" * 200_000, "http://" * 200_000, "http:@" * 200_000):
        without_secrets(text)
    assert time.monotonic() - start < 10
