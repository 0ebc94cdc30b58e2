"""The registry: every stage is there, chained by the environment's configuration, and listing them stays light."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.validation.exceptions import ParameterValidationError
from pydantic import BaseModel

from a2mae import pipeline_registry
from a2mae.pipeline_registry import TaskForm
from a2mae.pipelines.chain import plain_groups, stage_of
from a2mae.pipelines.checks import check_inputs
from a2mae.pipelines.report import SHOWN
from a2mae.pipelines.tasks import opened_by

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = [
    "base",
    *sorted(path.parent.name for path in ROOT.glob("conf/*/globals.yml") if path.parent.name != "base"),
]


@pytest.fixture(autouse=True)
def project():
    bootstrap_project(ROOT)
    yield
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES)


def chain_of(env: str) -> tuple[str, ...]:
    text = (ROOT / "conf" / env / "parameters_chain.yml").read_text("utf-8")
    return tuple(yaml.safe_load(text)["chain"])


def open_context(env: str | None):
    with KedroSession.create(project_path=ROOT, env=env, save_on_close=False) as session:
        return session.load_context()


def nodes_of(stages: tuple[str, ...]) -> set[str]:
    return {node.name for stage in stages for node in pipelines[stage].nodes}


def test_every_stage_is_registered_with_nodes():
    open_context(None)
    assert set(pipelines) == {*pipeline_registry.STAGES, "__default__"}
    assert all(pipelines[stage].nodes for stage in pipeline_registry.STAGES)


def test_every_node_belongs_to_a_package_that_the_hooks_know():
    open_context(None)
    known = set(pipeline_registry.STAGES)
    for name, pipeline in pipelines.items():  # a run stops at the first that does not
        assert {stage_of(node) for node in pipeline.nodes} <= known, name


@pytest.mark.parametrize("env", ["base", "real_samples"])
def test_default_pipeline_is_the_chain_of_the_environment(env):
    open_context(env)
    assert {node.name for node in pipelines["__default__"].nodes} == nodes_of(chain_of(env))


def test_environments_can_be_opened_one_after_the_other():
    open_context("real_samples")
    short = len(pipelines["__default__"].nodes)
    open_context("base")
    assert len(pipelines["__default__"].nodes) > short


def test_evaluate_reads_what_the_tasks_of_the_chain_make_and_no_more():
    """Encoders can be judged on a folder of one's own where no task is learned."""
    always = {"params:evaluate", "pretrained_model", "evaluation_run"}
    metrics = {f"{task}.metrics" for task in ("classify", "segment", "detect_change")}
    open_context("base")
    assert pipelines["evaluate"].inputs() == {*always, *metrics, "classify.data"}
    open_context("real_samples")
    assert pipelines["evaluate"].inputs() == always
    open_context("many_places")
    assert pipelines["evaluate"].inputs() == {*always, "segment.metrics", "detect_change.metrics", "estimate.metrics"}


def test_labels_of_ones_own_and_a_model_need_no_image_sets():
    pipeline_registry.use_chain(("classify", "segment", "embed", "report"))
    built = {"image_sets", "images", "sets", "locations", "simulation", "simulation_folder", "scenes", "sensors"}
    for stage in ("classify", "segment", "embed", "report"):
        assert not pipelines[stage].inputs() & built, stage
    pipeline_registry.use_chain(("ingest", "coregister", "tag", "prune", "pretrain", "segment", "report"))
    assert pipelines["segment"].inputs() & built == built - {"simulation", "simulation_folder"}
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES)
    assert pipelines["segment"].inputs() & built == built


def test_without_a_raster_or_scenes_a_task_ends_with_its_scores():
    """The map node would fail after hours of training; a raster that is named brings it back."""
    pipeline_registry.use_chain(("segment", "report"), {"segment": TaskForm(raster=False)})
    assert {node.name for node in pipelines["segment"].nodes} == {
        f"segment.{name}" for name in ("prepare_data", "finetune", "finetune_random", "score")
    }
    assert "segment.map" not in pipelines["report"].inputs() and "segment.metrics" in pipelines["report"].inputs()
    pipeline_registry.use_chain(("segment", "report"), {"segment": TaskForm(raster=True)})
    assert "segment.map" in pipelines["report"].inputs()
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES, {"segment": TaskForm(raster=False)})
    assert "segment.map" in pipelines["report"].inputs()
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES)


def test_a_task_that_names_its_encoder_needs_no_pretrained_model():
    pipeline_registry.use_chain(("segment", "report"), {"segment": TaskForm(started=True)})
    assert "pretrained_model" not in pipelines["segment"].inputs()
    assert "pretrained_model" in pipelines["classify"].inputs()
    pipeline_registry.use_chain(pipeline_registry.FROM_SCENES)
    assert "pretrained_model" in pipelines["segment"].inputs()
    assert opened_by("segment", "start.weights") == ("segment.finetune", "segment.finetune_random")


def test_a_head_that_answers_once_per_image_draws_no_map():
    open_context("base")
    assert "estimate.draw_map" in {node.name for node in pipelines["estimate"].nodes}
    with KedroSession.create(
        project_path=ROOT, save_on_close=False, runtime_params={"estimate": {"head": "attentive"}}
    ) as session:
        session.load_context()
    assert "estimate.draw_map" not in {node.name for node in pipelines["estimate"].nodes}
    assert "segment.draw_map" in {node.name for node in pipelines["segment"].nodes}


def test_a_task_without_its_twin_has_no_node_for_it():
    with KedroSession.create(
        project_path=ROOT, save_on_close=False, runtime_params={"segment": {"twin": False}}
    ) as session:
        session.load_context()
    assert "segment.finetune_random" not in {node.name for node in pipelines["segment"].nodes}
    assert "segment.random_model" not in pipelines["segment"].all_outputs()
    assert "classify.finetune_random" in {node.name for node in pipelines["classify"].nodes}


PICTURES = ("pictures", "pretrain", "evaluate", "report")


def test_a_folder_of_pictures_stands_in_place_of_scenes():
    pipeline_registry.use_chain(PICTURES)
    assert pipelines["pretrain"].inputs() - {"params:pretrain", "pretrain_run"} <= pipelines["pictures"].all_outputs()
    drawn = {node.name for node in pipelines["report"].nodes}
    assert not drawn & {"report.draw_map"}, "pictures have no place on a map"
    assert "dataset_card" not in pipelines["report"].all_outputs()
    assert {name.split(".")[0] for name in pipelines["__default__"].inputs()} <= {
        "params:pictures", "params:pretrain", "params:evaluate", "params:report", "params:chain", "parameters",
        "image_sets_url", "pretrain_run", "evaluation_run",
    }  # fmt: skip


def test_pictures_and_scenes_do_not_make_the_same_sets():
    with pytest.raises(ValueError, match=r"names pictures and coregister, tag, which both make the image sets"):
        pipeline_registry.use_chain(("pictures", "ingest", "coregister", "tag", "pretrain"))


@pytest.mark.parametrize(("chain", "maker"), [(pipeline_registry.FROM_SCENES[:6], "tag"), (PICTURES, "pictures")])
def test_what_is_missing_is_asked_of_the_stage_of_the_chain_that_makes_it(tmp_path, chain, maker):
    pipeline_registry.use_chain(tuple(stage for stage in chain if stage != "simulate"))
    kind = "a2mae.pipelines.datasets.TableDataset"
    catalog = DataCatalog.from_config(
        {name: {"type": kind, "filepath": str(tmp_path / name)} for name in ("images", "band_statistics")}
    )
    with pytest.raises(FileNotFoundError, match=r"the run reads what is not there") as error:
        check_inputs(pipelines["pretrain"], catalog, tmp_path)
    assert f"{maker}," in str(error.value) or f"{maker}, or" in str(error.value)
    assert ("pictures" in str(error.value)) == (maker == "pictures")


@pytest.mark.parametrize("env", ["base", "real_samples"])
def test_report_is_made_last(env):
    open_context(env)
    order = [node.name for node in pipelines["__default__"].nodes]
    own = {node.name for node in pipelines["report"].nodes}
    assert set(order[order.index("report.build_report") :]) <= own, "only the cards and the picture may come after it"
    report = next(node for node in pipelines["report"].nodes if node.name == "report.build_report")
    for stage in chain_of(env):
        if stage != "report":
            assert set(report.inputs) & pipelines[stage].all_outputs(), f"the report does not wait for {stage}"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_parameter_of_an_environment_is_known_and_within_its_bounds(env):
    context = open_context(env)
    context._pipelines_to_validate = ["__default__"]
    assert {node.name for node in pipelines["__default__"].nodes} == nodes_of(chain_of(env))
    groups = {name for name, group in context.params.items() if isinstance(group, BaseModel)}
    wanted = {
        name.removeprefix("params:").split(".")[0]
        for name in pipelines["__default__"].inputs()
        if name[:7] == "params:"
    }
    assert wanted - {"chain"} <= groups


def test_report_shows_only_what_a_stage_makes():
    open_context("base")
    made = {name for stage in pipeline_registry.STAGES for name in pipelines[stage].all_outputs()}
    assert set(SHOWN) <= made


@pytest.mark.parametrize("env", ["base", "real_samples"])
def test_every_dataset_between_stages_is_in_the_catalog(env):
    context = open_context(env)
    declared = context.catalog
    for stage in chain_of(env):
        free = {name for name in pipelines[stage].inputs() | pipelines[stage].outputs() if not name.startswith("param")}
        missing = {name for name in free if name not in declared}
        assert not missing, f"{stage}: not in conf/base/catalog_*.yml: {sorted(missing)}"


def test_every_parameter_group_is_validated():
    open_context("base")
    for stage in pipeline_registry.STAGES:
        for node in pipelines[stage].nodes:
            hints = get_type_hints(node.func)  # raises where a name is imported for type checking only
            names = list(inspect.signature(node.func).parameters)
            inputs = node._inputs if isinstance(node._inputs, dict) else dict(zip(names, node.inputs, strict=False))
            for argument, dataset in inputs.items():
                if dataset.startswith("params:") and dataset != "params:chain":
                    model = hints.get(argument)
                    assert isinstance(model, type) and issubclass(model, BaseModel), f"{node.name}: {dataset}"
                    assert model.model_config.get("extra") == "forbid", f"{node.name}: {dataset}"


def test_the_report_shows_the_same_configuration_as_a_stage_of_its_own():
    """Kedro makes models only of the groups that the run's pipelines declare."""
    context = open_context("base")
    raw = context.config_loader["parameters"]
    context._pipelines_to_validate = ["__default__"]
    whole = context.params
    assert isinstance(whole["pretrain"], BaseModel)
    assert isinstance(raw["pretrain"], dict)
    shown = [plain_groups(parameters, list(raw["chain"])) for parameters in (whole, raw)]
    assert json.dumps(shown[0]) == json.dumps(shown[1])
    assert shown[0]["evaluate"]["k"] == 20
    short = open_context("real_samples").config_loader["parameters"]
    assert "segment" not in plain_groups(short, list(short["chain"])), "it has no part in the chain"


def test_unknown_stage_in_the_chain_is_refused():
    with pytest.raises(ValueError, match=r"names no stage: embd; did you mean 'embed'\? stages are simulate"):
        pipeline_registry.use_chain(("ingest", "embd"))


def test_the_comparison_says_where_it_went():
    command = "the comparison of .* run `python -m benchmarks.compare benchmarks/compare/"
    with pytest.raises(ValueError, match=f"names no stage: compare; {command}simulated.yml`"):
        pipeline_registry.use_chain(("prune", "compare"))
    with KedroSession.create(project_path=ROOT, save_on_close=False) as session:
        with pytest.raises(ValueError, match=f"^no pipeline 'compare_folder': {command}eurosat.yml`"):
            session.run(pipeline_names=["compare_folder"])
    for opened, message in (
        ({"env": "compare"}, "no environment 'compare'"),
        ({"runtime_params": {"compare": {"budget_h": 4}}}, "unknown parameter group 'compare' in --params"),
    ):
        with pytest.raises((FileNotFoundError, ParameterValidationError), match=f"{message}: {command}simulated.yml`"):
            with KedroSession.create(project_path=ROOT, save_on_close=False, **opened) as session:
                session.load_context()


def test_listing_the_pipelines_imports_no_heavy_library():
    code = (
        "import sys; from a2mae.pipeline_registry import register_pipelines; register_pipelines();"
        "heavy = {'torch', 'lightning', 'rasterio', 'geopandas', 'wandb', 'zarr', 'dask', 'plotly'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.returncode == 0, f"imported while listing: {done.stderr.strip()[-300:]}"
