import json
from dataclasses import dataclass, field

import pandas as pd
import pytest
import torch

from a2mae.models.checkpoint import save_pretrained
from a2mae.models.registry import create_model
from a2mae.remote.storage import Folder, Parts
from a2mae.tasks.datasets.class_folders import class_folder
from a2mae.tasks.datasets.formats import FORMATS
from a2mae.tasks.datasets.task_data import TaskData, TaskDataError
from a2mae.tasks.datasets.writer import write_task_data
from a2mae.tasks.parameters import EvaluateParameters, TaskParameters
from a2mae.tasks.registry import Task
from benchmarks.compare.comparison import Budget, run_comparison, steps_within
from benchmarks.compare.findings import comparison_markdown, marks, write_between_marks
from benchmarks.compare.judges import Contender, FinetuneJudge, FrozenJudge, FrozenTaskJudge
from benchmarks.compare.settings import CompareParameters
from benchmarks.compare.sources import source_of_pictures
from helpers.class_pictures import two_classes
from helpers.task_samples import SENTINEL2, make_samples, make_spec, spec_for

STATISTICS = {SENTINEL2.id: {band: [0.05, 0.03] for band in ("B02", "B03", "B04")}}
MAE = {"name": "mae", "method": "mae"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    made = create_model("mae_vit_tiny_patch8", embed_dim=32, depth=2, decoder_dim=32, decoder_depth=1)
    return save_pretrained(made, tmp_path_factory.mktemp("model"), config={"normalization": STATISTICS})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_task_data(folder / "classify", make_spec(), make_samples(Task.CLASSIFY, count=60, size=32))
    write_task_data(folder / "segment", spec_for(Task.SEGMENT), make_samples(Task.SEGMENT, count=20, size=32))
    return {name: TaskData(folder / name) for name in ("classify", "segment")}


@dataclass
class Coin:
    """A judge that scores by the contender's seed and counts its calls."""

    settings: str = "coin"
    name: str = "coin"
    asked: list = field(default_factory=list)

    def judges(self, contender):
        return contender.kind != "pixels"

    def score(self, contender, model):
        self.asked.append((contender.name, contender.seed, model))
        value = 0.5 + contender.seed / 10
        row = {"task": "classify", "data": "coins", "mode": "linear_probe", "metric": "top1", "value": value}
        return [
            {
                **row,
                "over": "",
                "low": value - 0.1,
                "high": value + 0.1,
                "n": 9,
                "groups": 9,
                "gsd_m": 1.0,
                "native_gsd_m": 1.0,
            }
        ]


def units(folder, code="as it is"):
    return Parts(Folder(str(folder / "units")), code)


def contenders(seeds=(0, 1)):
    kinds = (("mae", "trained"), ("random", "random"), ("pixels", "pixels"))
    return [
        Contender(name, kind, seed, "{}", **({"twin": "random"} if kind == "trained" else {"like": "mae"}))
        for seed in seeds
        for name, kind in kinds
    ]


def test_units_are_done_once_and_a_larger_budget_goes_on(tmp_path):
    judge, trained = Coin(), []

    def train(contender):
        trained.append(contender)
        return tmp_path / f"model-{contender.seed}"

    spent = Budget(tmp_path / "budget.json", 1.0)
    (tmp_path / "budget.json").write_text(json.dumps({"spent_s": 3600.0}))
    stopped = run_comparison(units(tmp_path), contenders(), [judge], train, Budget(tmp_path / "budget.json", 1.0))
    assert (stopped.done, stopped.planned, judge.asked) == (0, 4, [])
    assert not spent.exhausted  # read before anything was spent
    found = run_comparison(units(tmp_path), contenders(), [judge], train, Budget(tmp_path / "budget.json", 2.0))
    assert (found.done, found.planned) == (4, 4)
    # a random encoder takes the architecture of the first trained one; baselines that the judge cannot score are left
    assert judge.asked == [
        ("mae", 0, tmp_path / "model-0"),
        ("random", 0, tmp_path / "model-0"),
        ("mae", 1, tmp_path / "model-1"),
        ("random", 1, tmp_path / "model-0"),
    ]
    assert found.table.groupby("model")["value"].mean().to_dict() == {"mae": 0.55, "random": 0.55}
    again = run_comparison(units(tmp_path), contenders(), [judge], train, Budget(tmp_path / "budget.json", 2.0))
    assert len(judge.asked) == 4
    pd.testing.assert_frame_equal(again.table, found.table)
    # other code keeps what hours were spent on, and says so
    other = run_comparison(
        units(tmp_path, "changed"), contenders(), [judge], train, Budget(tmp_path / "budget.json", 2.0)
    )
    assert (other.done, other.other_code, found.other_code, len(judge.asked)) == (4, 4, 0, 4)
    assert "4 of them were made by an earlier version of the code." in comparison_markdown(other, ["mae"], [])
    changed = Coin(settings="another protocol")
    assert run_comparison(units(tmp_path), contenders(), [changed], train, Budget(tmp_path / "b.json", 2.0)).done == 4
    assert len(changed.asked) == 4


def test_a_stop_in_the_middle_loses_nothing_and_is_counted(tmp_path):
    class Stops(Coin):
        def score(self, contender, model):
            if contender.seed == 1:
                raise KeyboardInterrupt
            return super().score(contender, model)

    budget = Budget(tmp_path / "budget.json", 1.0)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(units(tmp_path), contenders(), [Stops()], lambda c: tmp_path, budget)
    assert json.loads((tmp_path / "budget.json").read_text())["spent_s"] >= 0
    assert len(list((tmp_path / "units").iterdir())) == 2
    judge = Coin()
    assert run_comparison(units(tmp_path), contenders(), [judge], lambda c: tmp_path, budget).done == 4
    assert [seed for _, seed, _ in judge.asked] == [1, 1]


def test_steps_keep_the_budget():
    steps = steps_within(1000.0, {"mae": 0.5, "a2mae": 1.0}, {"mae": 2, "a2mae": 4}, start_s=10.0)
    assert steps == 188
    assert 6 * 10 + steps * (2 * 0.5 + 4 * 1.0) <= 1000
    assert steps_within(30.0, {"mae": 1.0}, {"mae": 6}, start_s=10.0) == 0


def test_real_judges_score_trained_random_and_baselines(tmp_path, model, data):
    options = EvaluateParameters(
        device="cpu", threads=1, bootstrap=100, shots=(), relative_gsd=(0.5, 1.0), c_grid=(0.1,)
    )
    recipe = TaskParameters.model_validate(
        {"task": "segment", "device": "cpu", "threads": 1, "bootstrap": 100, "finetune": {"steps": 3, "batch_size": 4}}
    )
    judges = [
        FrozenJudge(data["classify"], options),
        FinetuneJudge(data["segment"], recipe),
        FrozenTaskJudge(data["segment"], recipe),
        FrozenTaskJudge(data["segment"], recipe, head="rcf"),
    ]
    everyone = [*contenders((0,)), *(Contender(name, name, 0, like="mae") for name in ("histogram", "rcf"))]
    found = run_comparison(units(tmp_path), everyone, judges, lambda c: model, Budget(tmp_path / "b.json", 1.0))
    assert (found.done, found.planned) == (13, 13)
    scores, gains = found.table[found.table["over"] == ""], found.table[found.table["over"] != ""]
    by = scores.groupby(["task", "model"]).size().to_dict()
    assert by[("segment", "mae")] == by[("segment", "random")] == 6  # two metrics, whole and frozen twice
    convolved = scores[(scores["model"] == "rcf") & (scores["metric"] == "miou")]
    assert sorted(convolved["mode"]) == ["frozen", "frozen_rcf"]
    assert convolved["value"].nunique() == 1 and convolved["value"].min() > 0.5
    assert set(gains["model"]) == {"mae"} and set(gains["over"]) == {"random", "rcf"}
    for gain in gains.itertuples():
        same = scores[(scores["mode"] == gain.mode.removesuffix("_gain")) & (scores["metric"] == gain.metric)]
        value = same[same["gsd_m"] == gain.gsd_m].set_index(["task", "model"])["value"]
        assert gain.value == pytest.approx(value[gain.task, "mae"] - value[gain.task, gain.over])
        assert gain.low <= gain.value <= gain.high
    assert (
        by[("classify", "histogram")] == by[("classify", "mae")] == 10
    )  # kNN four ways at two scales, a probe, a search
    assert ("segment", "histogram") not in by
    frozen = found.table[found.table["mode"] == "knn"]
    assert frozen[frozen["model"] == "histogram"]["value"].min() > 0.9  # covers of different colour
    text = comparison_markdown(found, ["mae", "random", "rcf", "histogram"], ["A sentence."])
    assert "Over rcf, paired over places:" in text and "Over random, paired over places:" in text
    assert "| | seeds | kNN | kNN, standardised | linear probe |" in text
    assert "| | seeds | 10 m | 20 m |" in text
    knn = frozen[(frozen["model"] == "histogram") & (frozen["gsd_m"] == 10)].iloc[0]
    assert f"| histogram | 1 | {knn['value']:.3f} [{knn['low']:.3f}, {knn['high']:.3f}]" in text


def test_the_table_goes_between_its_marks_only(tmp_path):
    document = tmp_path / "results.md"
    begin, end = marks("mine")
    other = "\n".join(marks("comparison"))
    document.write_text(f"{other}\n{begin}\nold \\1\n{end}\nafter\n")
    write_between_marks(document, "new \\g<0>\n", "mine")
    assert document.read_text() == f"{other}\n{begin}\nnew \\g<0>\n{end}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(TaskDataError, match="must hold the line"):
        write_between_marks(document, "x", "mine")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="names of their own, found mae, mae"):
        CompareParameters.model_validate({"budget_h": 1, "contenders": [MAE, MAE]})
    with pytest.raises(ValueError, match="a contender is called pixels, as what it is compared with: rename it"):
        CompareParameters.model_validate({"budget_h": 1, "contenders": [{**MAE, "name": "pixels"}]})
    sets = {"name": "sets", "method": "a2mae"}
    with pytest.raises(ValueError, match="single images, not sets: sets cannot be pretrained on it"):
        CompareParameters.model_validate(
            {"budget_h": 1, "contenders": [MAE], "folder": "x", "folder_contenders": [sets]}
        )
    with pytest.raises(ValueError, match="nothing to compare: 'contenders' and 'folder_contenders' are empty"):
        CompareParameters.model_validate({"budget_h": 1, "folder": "x"})
    with pytest.raises(ValueError, match="need 'folder'"):
        CompareParameters.model_validate({"budget_h": 1, "contenders": [MAE], "folder_contenders": [MAE]})


def test_single_images_become_sets_without_the_test_split(tmp_path):
    from a2mae.training.data.index import HELD_OUT, TRAIN

    folder = two_classes(tmp_path / "set", 60, ".png")
    options = CompareParameters.model_validate({"budget_h": 1, "contenders": [MAE], "folder": str(folder)})
    judged = list(class_folder(folder, FORMATS["rgb_bytes"]).samples())
    sets = source_of_pictures(options, "set", tmp_path / "store.zarr")
    for split, name in ((TRAIN, "train"), (HELD_OUT, "val")):
        wanted = sorted(str(sample.row["sample_id"]) for sample in judged if sample.row["split"] == name)
        assert sorted(sets.index.name(place) for place in sets.index.sets_of(split)) == wanted and wanted
    assert sets.suffix == " (set)" and sets.single_images
