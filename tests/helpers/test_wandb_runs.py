"""The reader of offline runs, against runs that W&B itself wrote."""

import wandb

from helpers.wandb_runs import find_runs, read_run


def test_reads_back_what_was_logged(tmp_path):
    run = wandb.init(mode="offline", project="p", name="n", group="g", config={"a": {"b": 1}}, dir=tmp_path)
    for step in range(3):
        run.log({"loss": 1 / (step + 1), "words": "x" * 40_000})  # longer than a block of the log
    run.summary["top1"] = 0.5
    run.finish()
    (path,) = find_runs(tmp_path)
    found = read_run(path)
    assert found.run is not None and (found.run.project, found.run.display_name, found.run.run_group) == ("p", "n", "g")
    assert found.config["a"] == {"b": 1}
    assert [round(row["loss"], 3) for row in found.history] == [1.0, 0.5, 0.333]
    assert all(len(row["words"]) == 40_000 for row in found.history)
    assert found.summary["top1"] == 0.5
