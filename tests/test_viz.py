"""Kedro-viz builds offline with its layers; it hides all of them where two come before each other."""

import json

from helpers.checkout import changes, checkout, run


def test_builds_with_layers_and_collapsed_tasks(tmp_path):
    clone = checkout(tmp_path / "clone")
    log = tmp_path / "sockets.log"
    done = run(clone, "kedro", "viz", "build", socket_log=log, timeout=200)
    assert "Success" in done.stdout + done.stderr, (done.stdout + done.stderr)[-2000:]
    graph = json.loads((clone / "build/api/main").read_text("utf-8"))
    assert graph["layers"][0] == "raw" and graph["layers"][-1] == "reporting"
    assert {"classify", "segment", "detect_change"} <= set(graph["modular_pipelines"])
    assert changes(clone) == ""
    assert not log.exists(), f"sockets beyond loopback: {log.read_text()}"
