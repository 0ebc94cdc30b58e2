"""The comparison's trainings: alike but for the method, planned once, never done twice; the folder's pipeline."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from a2mae.pipelines import compare_trainer as trainer_module
from a2mae.pipelines.compare import compare_on_folder
from a2mae.pipelines.compare_trainer import Source, Trainer
from a2mae.tasks.compare_parameters import CompareParameters
from a2mae.tasks.datasets.image_store import image_sets_of
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.evaluation.comparison import BEGIN, END
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters
from a2mae.tasks.registry import Task
from a2mae.training.parameters import PretrainParameters
from a2mae.training.spec import read_spec
from helpers.class_pictures import two_classes
from helpers.task_samples import make_samples, make_spec

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
    write_task_data(tmp_path / "data", make_spec(), make_samples(Task.CLASSIFY, count=30, size=32))
    sets = image_sets_of(TaskData(tmp_path / "data"), tmp_path / "store.zarr")
    parts = (sets.store, sets.sensors, sets.index, sets.statistics)
    return [Source("", *parts, single_images=False), Source(" (pictures)", *parts, single_images=True)]


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
    assert dataclasses.replace(own, model=same.model).identity == same.identity
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


def groups(folder):
    pretrain = base("pretrain")
    pretrain["model"] |= {
        "options": {"depth": 1, "embed_dim": 32, "decoder_dim": 32, "decoder_num_heads": 4, "num_heads": 2}
    }
    pretrain["sampling"] |= {"images": 1, "image_size": 16, "bands": "rgb"}
    pretrain["optimizer"] |= {"batch_size": 8}
    pretrain["hardware"] = {"threads": 1}
    evaluation = base("evaluate") | {"relative_gsd": [0.5, 1.0], "shots": [], "bootstrap": 100, "c_grid": [0.1]}
    classification = base("classify") | {"bands": ["red", "green", "blue"], "bootstrap": 100}
    classification["finetune"] |= {"steps": 3, "batch_size": 8, "warmup_steps": 1}
    options = {"budget_h": 1.0, "steps": 20, "seeds": [0], "contenders": CONTENDERS, "folder": str(folder)}
    options |= {"folder_contenders": CONTENDERS[:1], "finetune_folder": True}
    return (
        CompareParameters.model_validate(options),
        {
            "pretrain": PretrainParameters.model_validate(pretrain),
            "evaluation": EvaluateParameters.model_validate(evaluation),
            "classification": TaskParameters.model_validate(classification),
        },
    )


@pytest.mark.slow
def test_a_folder_of_pictures_from_pixels_to_table(tmp_path):
    options, others = groups(two_classes(tmp_path / "pictures", 40))
    document = tmp_path / "docs" / "results.md"
    document.parent.mkdir()
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    options = options.model_copy(update={"document": str(document)})
    table, summary = compare_on_folder(options, folder=tmp_path / "work", **others)
    assert (summary["judgements"], summary["judgements_planned"]) == (6, 6)
    assert set(table["model"]) == {"mae (pictures)", "random", "pixels", "histogram"}
    assert set(table[table["model"] == "mae (pictures)"]["mode"]) == {
        "knn", "knn_standardised", "linear_probe", "finetuned"
    }  # fmt: skip
    assert table[table["model"] == "histogram"]["value"].min() > 0.9
    assert "| histogram | 1 |" in (tmp_path / "work" / "comparison.md").read_text()
    assert "(figures/comparison_gsd.svg)" in document.read_text()
    figure = (document.parent / "figures" / "comparison_gsd.svg").read_bytes()
    assert b"pictures: both sides coarse" in figure
    assert figure == (tmp_path / "work" / "figures" / "comparison_gsd.svg").read_bytes()
    again, _ = compare_on_folder(options, folder=tmp_path / "work", **others)
    assert again.equals(table)


def test_no_folder_is_told(tmp_path):
    options, others = groups(tmp_path)
    without = options.model_copy(update={"folder": None})
    with pytest.raises(TaskDataError, match=r"compare_folder needs compare\.folder"):
        compare_on_folder(without, folder=tmp_path, **others)
