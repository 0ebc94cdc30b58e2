"""An environment that is not there is named beside those that are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from a2mae.pipelines.hooks import KnownEnvironment, UnknownEnvironmentError


def check(source: Path, env: str | None) -> None:
    loader = SimpleNamespace(conf_source=str(source), env=env)
    KnownEnvironment().after_context_created(SimpleNamespace(config_loader=loader))


def test_the_nearest_and_all_there_are_are_named(tmp_path: Path) -> None:
    for name in ("base", "local", "many_places"):
        (tmp_path / name).mkdir()
    with pytest.raises(UnknownEnvironmentError, match=r"did you mean 'many_places'\? .* has local, many_places;"):
        check(tmp_path, "manyplaces")
    check(tmp_path, "many_places")
    check(tmp_path, None)


def test_a_packed_configuration_is_left_to_kedro(tmp_path: Path) -> None:
    (tmp_path / "conf.tar.gz").write_bytes(b"")
    check(tmp_path / "conf.tar.gz", "mine")
