"""Trainings of the comparison, alike but for the method, planned once; a folder from pixels to table."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from a2mae.training.parameters import PretrainParameters
from a2mae.training.spec import read_spec
from benchmarks.compare import trainer as trainer_module
from benchmarks.compare.findings import marks
from benchmarks.compare.run import compare
from benchmarks.compare.settings import CompareParameters, Settings
from benchmarks.compare.sources import source_of_pictures
from benchmarks.compare.trainer import Trainer
from helpers.class_pictures import two_classes
from helpers.configuration import laid_over

ROOT = Path(__file__).parents[2]
CONTENDERS = [
    {"name": "mae", "method": "mae"},
    {"name": "a2mae_same", "method": "a2mae", "options": {"masking": "same"}},
    {"name": "a2mae_own", "method": "a2mae", "options": {"encoding": "own"}},
]


def base(group):
    return yaml.safe_load((ROOT / f"conf/base/parameters_{group}.yml").read_text("utf-8"))[group]


@pytest.fixture
def sources(tmp_path):
    options = {"budget_h": 1.0, "contenders": CONTENDERS, "folder": str(two_classes(tmp_path / "set", 15, ".png"))}
    pictures = source_of_pictures(CompareParameters.model_validate(options), "set", tmp_path / "store.zarr")
    return [
        dataclasses.replace(pictures, suffix="", single_images=False),
        dataclasses.replace(pictures, suffix=" (pictures)"),
    ]


@pytest.fixture
def launched(monkeypatch):
    """What would be trained; every method takes its own time per step."""
    asked = []

    def launch(run_dir):
        spec = read_spec(run_dir)
        asked.append(spec)
        rate = spec.optimizer.batch_size / {"mae": 0.5, "a2mae": 1.0, "scale_mae": 2.0}[spec.method]
        (run_dir / "timing.csv").write_text(f"step,samples_per_s\n4,1.0\n8,{rate}\n12,{rate}\n")
        (run_dir / "model").mkdir()
        (run_dir / "model" / "config.json").write_text("{}")
        (run_dir / "finished.json").write_text(json.dumps({"identity": spec.identity}))
        return run_dir / "model"

    monkeypatch.setattr(trainer_module, "launch", launch)
    return asked


def make(sources, folder, **changes):
    options = {"budget_h": 1.0, "seeds": [0, 1], "contenders": CONTENDERS, "folder": "x"}
    options |= {"folder_contenders": CONTENDERS[:1], **changes}
    pretrain = PretrainParameters.model_validate(base("pretrain"))
    return Trainer(CompareParameters.model_validate(options), pretrain, sources, folder)


def test_trainings_are_alike_but_for_the_method(sources, launched, tmp_path):
    trainer = make(sources, tmp_path / "work", steps=50)
    assert [name for name, _, _ in trainer.entries] == ["mae", "a2mae_same", "a2mae_own", "mae (pictures)"]
    assert not launched  # with given steps nothing has to be tried
    for name, _, _ in trainer.entries:
        trainer.train(trainer.contender(name, 1))
    mae, same, own, single = launched
    assert (same.model.options["masking"], own.model.options["encoding"]) == ("same", "own")
    for spec in launched:
        assert spec.optimizer.steps == 50
        assert spec.seed == 1
        assert spec.logging.wandb_project is None
        images = spec.optimizer.batch_size * spec.sampling.images
        assert images == mae.optimizer.batch_size * mae.sampling.images
        assert spec.optimizer.learning_rate == pytest.approx(mae.optimizer.learning_rate)
        assert spec.model.options["depth"] == mae.model.options["depth"]
    assert own.replace(model=same.model).identity == same.identity
    assert (single.sampling.images, single.sampling.bands) == (1, "rgb")
    again = make(sources, tmp_path / "work", steps=50)
    again.train(again.contender("mae", 1))
    assert len(launched) == 4  # found, not trained again
    again.train(again.contender("mae", 0))
    assert len(launched) == 5


def test_steps_come_from_the_budget_and_stay(sources, launched, tmp_path):
    trainer = make(sources, tmp_path / "work", budget_h=2.0)
    assert sorted((spec.method, spec.sampling.images) for spec in launched) == [("a2mae", 3), ("mae", 1), ("mae", 3)]
    runs = 2 * 4  # seeds x contenders
    seconds = 2 * (0.5 + 1.0 + 1.0 + 0.5)  # per step of all runs together
    assert trainer.steps == int((3600 - runs * trainer_module.START_S) / seconds)
    assert make(sources, tmp_path / "work", budget_h=5.0).steps == trainer.steps  # more hours go on, not anew
    assert len(launched) == 3
    other = make(sources, tmp_path / "work", budget_h=2.0, seeds=[0])
    assert other.steps > trainer.steps
    little = make(sources, tmp_path / "other", budget_h=0.01)
    assert little.steps == 20


def test_a_changed_recipe_is_another_contender(sources, launched, tmp_path):
    first, second = (make(sources, tmp_path / "work", steps=steps) for steps in (50, 60))
    assert first.contender("mae", 0) == first.contender("mae", 0)
    assert first.contender("mae", 0) != second.contender("mae", 0)
    assert first.contender("mae", 0) != first.contender("mae", 1)


def settings_of(name, **compare):
    """A settings file of the benchmark laid over conf/base, as its command does."""
    shown = yaml.safe_load((ROOT / f"benchmarks/compare/{name}.yml").read_text("utf-8"))
    groups = {group: base(group) for group in ("pretrain", "evaluate", "classify", "segment", "detect_change")}
    shown["compare"] |= compare
    return Settings.from_groups(laid_over(groups, shown))


@pytest.mark.parametrize(
    "name",
    [
        "simulated",
        "eurosat",
        "demo",
        "demo_contrast",
        "recipes",
        "crops",
        "pictures",
        "pictures_hour",
        "pictures_finetune",
    ],
)
def test_every_settings_file_is_within_its_bounds(name):
    settings = settings_of(name)
    assert settings.compare.contenders or settings.compare.folder_contenders
    assert settings.evaluate.relative_gsd[-1] == 1.0


def test_an_arm_with_another_stem_has_a_twin_of_its_own(sources, launched, tmp_path):
    stem = {"name": "stem", "method": "a2mae", "options": {"stem": "rcf"}}
    trainer = make(sources, tmp_path / "work", steps=50, contenders=[*CONTENDERS, stem])
    twins = [trainer.contender(name, 0).twin for name, _, _ in trainer.entries]
    assert twins == ["random", "random", "random", "random_rcf", "random"]
    assert json.loads(trainer.architecture("stem"))[0]["options"] == {"stem": "rcf"}


@pytest.mark.slow
def test_a_folder_of_pictures_from_pixels_to_table(tmp_path):
    document = tmp_path / "docs" / "results.md"
    document.parent.mkdir()
    begin, end = marks("comparison")
    document.write_text(f"before\n{begin}\n{end}\nafter\n")
    pictures = two_classes(tmp_path / "pictures", 40)
    settings = settings_of("quick", folder=str(pictures), document=str(document))
    spent = tmp_path / "part"
    spent.mkdir()
    (spent / "budget.json").write_text(json.dumps({"spent_s": 3600 * settings.compare.budget_h}))
    assert compare(settings, None, spent).done == 0
    assert document.read_text() == f"before\n{begin}\n{end}\nafter\n", "a part of a table takes no whole one's place"
    found = compare(settings, None, tmp_path / "work")
    table, summary = found.table, json.loads((tmp_path / "work" / "summary.json").read_text())
    assert (summary["judgements"], summary["judgements_planned"]) == (8, 8)
    assert set(table["model"]) == {"mae (pictures)", "random", "rcf", "statistics", "pixels", "histogram"}
    scores = table[table["over"] == ""]
    assert set(scores[scores["model"] == "mae (pictures)"]["mode"]) == {
        "knn", "knn_standardised", "linear_probe", "search", "finetuned"
    }  # fmt: skip
    assert table[table["model"] == "histogram"]["value"].min() > 0.9
    assert "| histogram | 1 |" in (tmp_path / "work" / "comparison.md").read_text()
    assert "(figures/comparison_gsd.svg)" in document.read_text()
    figure = (document.parent / "figures" / "comparison_gsd.svg").read_bytes()
    assert b"pictures: both sides coarse" in figure
    assert figure == (tmp_path / "work" / "figures" / "comparison_gsd.svg").read_bytes()
    assert compare(settings, None, tmp_path / "work").table.equals(table)


@pytest.mark.slow
def test_the_quick_form_ends_with_its_result():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "--quick"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].startswith("RESULT judgements=8 planned=8 ")
