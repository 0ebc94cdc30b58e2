"""What a run would stumble over after hours is refused before its first node, with what to change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.validation.exceptions import ParameterValidationError
from pydantic import ValidationError
from safetensors.torch import save_file

from a2mae.config import Parameters
from a2mae.errors import InputError
from a2mae.models import create_model, save_pretrained
from a2mae.models.released import CheckpointError
from a2mae.pipelines.checks import (
    MissingInputError,
    ModelParametersError,
    MovedDatasetError,
    NamedFileError,
    OutputFolderError,
    UnknownEnvironmentError,
    check_dataset_types,
    check_embedded,
    check_environment,
    check_groups,
    check_inputs,
    check_model,
    check_named_paths,
    check_named_rasters,
    check_outputs,
)
from a2mae.pipelines.environment_files import EnvironmentFilesError, NamingConfigLoader, check_environment_files
from a2mae.stssd.ingest.parameters import IngestParameters
from a2mae.tasks.parameters import EmbedParameters, EvaluateParameters, TaskParameters
from a2mae.training.parameters import PretrainParameters
from helpers.rasters import write_tif


def check_env(source: Path, env: str | None) -> None:
    loader = SimpleNamespace(conf_source=str(source), env=env)
    check_environment(loader)


def test_the_nearest_and_all_there_are_are_named(tmp_path: Path) -> None:
    for name in ("base", "local", "many_places"):
        (tmp_path / name).mkdir()
    with pytest.raises(UnknownEnvironmentError, match=r"did you mean 'many_places'\? .* has local, many_places;"):
        check_env(tmp_path, "manyplaces")
    check_env(tmp_path, "many_places")
    check_env(tmp_path, None)


@pytest.mark.parametrize("env", [".", "..", "", "local/..", "/etc", "a\0b", "\ud800", "x" * 5000])
def test_a_path_is_no_environment(tmp_path: Path, env: str) -> None:
    (tmp_path / "local").mkdir()
    with pytest.raises(UnknownEnvironmentError, match="has local"):
        check_env(tmp_path, env)


def test_a_packed_configuration_is_left_to_kedro(tmp_path: Path) -> None:
    (tmp_path / "conf.tar.gz").write_bytes(b"")
    check_env(tmp_path / "conf.tar.gz", "mine")


def loader_of(source: Path, **runtime: object) -> OmegaConfigLoader:
    configure_project("a2mae")
    for name in ("base", "local"):
        (source / name).mkdir(exist_ok=True)
    return OmegaConfigLoader(str(source), base_env="base", default_run_env="local", runtime_params=runtime)


def test_a_group_that_nobody_knows_is_named_with_its_neighbour(tmp_path: Path) -> None:
    loader = loader_of(tmp_path, pretrian={"seed": 1})
    (tmp_path / "base/parameters.yml").write_text("pretrain: {seed: 0}\ntag: {seed: 0}\n")
    told = r"'pretrian' in --params: did you mean 'pretrain'\? conf/base/parameters_\*\.yml has pretrain, tag"
    with pytest.raises(ParameterValidationError, match=told):
        check_groups(loader)
    check_groups(loader_of(tmp_path, pretrain={"seed": 1}))
    check_groups(loader_of(tmp_path))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("a2mae.io.table.TableDataset", "a2mae.pipelines.datasets.TableDataset"),
        ("a2mae.io.folder.FolderDataset", "a2mae.pipelines.datasets.PathDataset"),
        ("a2mae.io.task_data.StreamedDataset", "a2mae.pipelines.datasets.RasterDataset"),
    ],
)
def test_a_dataset_type_that_has_moved_is_told_with_its_successor(tmp_path: Path, before: str, now: str) -> None:
    loader = loader_of(tmp_path)
    (tmp_path / "base/catalog.yml").write_text(f"_x: 1\nmine:\n  type: {before}\n  filepath: data/x\n")
    with pytest.raises(MovedDatasetError, match=f"'mine' has the type {before}, which has moved: write {now}$"):
        check_dataset_types(loader)
    (tmp_path / "base/catalog.yml").write_text(f"mine:\n  type: {now}\n  filepath: data/x\n")
    check_dataset_types(loader)


def environments(source: Path, **files: str) -> OmegaConfigLoader:
    """A configuration with an environment `mine` of these files, and those of base and another one."""
    for name in ("base", "local", "other", "mine"):
        (source / name).mkdir(parents=True, exist_ok=True)
    (source / "base/globals.yml").write_text("data_root: data\n")
    (source / "base/parameters_pretrain.yml").write_text("pretrain: {seed: 0}\n")
    (source / "base/parameters_chain.yml").write_text("chain: [tag]\n")
    (source / "other/globals.yml").write_text("data_root: data/other\n")
    for name, text in {"globals": "data_root: data/mine\n", **files}.items():
        if text:
            (source / "mine" / f"{name}.yml").write_text(text)
    configure_project("a2mae")
    return OmegaConfigLoader(str(source), base_env="base", default_run_env="local", env="mine")


def test_all_that_nothing_reads_in_an_environment_is_named_with_its_neighbour(tmp_path: Path) -> None:
    loader = environments(
        tmp_path / "conf",
        parameters_a="pretrin: {seed: 1}\n_anchor: 1\n",
        parameter_pretrain="pretrain: {seed: 1}\n",
        parameters_b="pretrain: {seed: 1}\nchains: [tag]\n",
    )
    with pytest.raises(EnvironmentFilesError) as told:
        check_environment_files(loader)
    for part in (
        "conf/mine/parameters_a.yml has the group 'pretrin', which nothing reads: did you mean 'pretrain'?",
        "nothing reads conf/mine/parameter_pretrain.yml: did you mean 'parameters_pretrain.yml'?",
        "conf/mine/parameters_b.yml has the group 'chains', which nothing reads: did you mean 'chain'? there are",
    ):
        assert part in str(told.value)
    assert "_anchor" not in str(told.value)
    check_environment_files(environments(tmp_path / "good", parameters_b="pretrain: {seed: 1}\n", catalog_x="a: 1\n"))


@pytest.mark.parametrize(
    ("own", "whose"), [("", "'base'"), ("data_root: data/../data\n", "'base'"), ("data_root: data/other/\n", "'other'")]
)
def test_an_environment_that_writes_into_another_s_data_is_refused(tmp_path: Path, own: str, whose: str) -> None:
    with pytest.raises(EnvironmentFilesError, match=rf"writes into data.*, where the outputs of {whose} lie") as told:
        check_environment_files(environments(tmp_path, globals=own))
    assert ("because it has no globals.yml" in str(told.value)) == (not own)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("pretrain: {seed: 1}\npretrain: {seed: 2}\n", r"in line 2 \(found duplicate key pretrain\)"),
        ("pretrain: {seed: 1\n", r"in line 2 \("),
        ("pretrain:\n\tseed: 1\n", r"in line 2 \("),
        ("pretrain: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("pretrain: *gone\n", "found undefined alias"),
        ("pretrain: \0\n", "special characters are not allowed|unacceptable character"),
        ("pretrain: {a: '${'}\n", r"\$\{"),
        ("- pretrain\n", "holds a list"),
        ("pretrain: " + "[" * 2000 + "]" * 2000 + "\n", "recursion"),
        (b"pretrain: {a: \xe9}\n", "codec can't decode"),
    ],
)
@pytest.mark.parametrize("folder", ["mine", "base"])
@pytest.mark.parametrize("kind", ["parameters", "globals", "catalog"])
def test_a_file_that_is_no_yaml_is_named(
    tmp_path: Path, kind: str, folder: str, content: str | bytes, why: str
) -> None:
    source = Path(environments(tmp_path, parameters_b="pretrain: {seed: 1}\n").conf_source)
    path = source / folder / ("globals.yml" if kind == "globals" else f"{kind}_c.yml")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = rf"{folder}/{path.stem}\.yml .*({why}).*: correct it"
    with pytest.raises(EnvironmentFilesError, match=told):
        NamingConfigLoader(str(source), base_env="base", default_run_env="local", env="mine")[kind]
    if kind != "globals":
        with pytest.raises(EnvironmentFilesError, match=told):
            check_environment_files(NamingConfigLoader(str(source), base_env="base", env="mine"))


def test_what_kedro_says_of_whole_files_stays_its_own(tmp_path: Path) -> None:
    source = environments(
        tmp_path, parameters_b="pretrain: {seed: 1}\n", parameters_c="pretrain: {seed: 2}\n"
    ).conf_source
    with pytest.raises(ValueError, match="Duplicate keys found"):
        NamingConfigLoader(source, base_env="base", default_run_env="local", env="mine")["parameters"]


def test_a_broken_file_of_another_environment_stops_nobody(tmp_path: Path) -> None:
    loader = environments(tmp_path, parameters_b="pretrain: {seed: 1}\n")
    (Path(loader.conf_source) / "other/globals.yml").write_text("a: 1\na: 2\n")
    check_environment_files(loader)


def test_the_environments_of_this_project_pass() -> None:
    source = Path(__file__).parents[2] / "conf"
    for folder in source.iterdir():
        if folder.is_dir():
            env = folder.name
            check_environment_files(OmegaConfigLoader(str(source), base_env="base", default_run_env="local", env=env))


READING = Pipeline([node(lambda scenes, mine: [scenes, mine], ["scenes", "mine"], "made"), node(len, "made", "count")])


def check_made(project: Path, **paths: str) -> None:
    configure_project("a2mae")
    entries = {name: {"type": "json.JSONDataset", "filepath": path} for name, path in paths.items()}
    check_inputs(READING, DataCatalog.from_config(entries), project)


def test_the_stage_that_makes_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(
        MissingInputError, match=r"'scenes' \(data/scenes\.json\); .*--pipelines=ingest,.*data_root"
    ) as e:
        check_made(
            tmp_path, scenes="data/scenes.json", mine="mine.json", made="data/made.json", count="data/count.json"
        )
    assert "mine" not in str(e.value), "what is there was called missing"
    assert "made" not in str(e.value).replace("not been made", ""), "what the run makes itself was asked for"


def test_what_no_stage_makes_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(MissingInputError, match=r"'mine' \(mine\.json\); no stage makes it"):
        check_made(tmp_path, scenes="scenes.json", mine="mine.json")


def test_what_is_there_or_far_away_is_not_asked_about(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text("{}")
    check_made(tmp_path, scenes=str(tmp_path / "scenes.json"), mine="s3://bucket/mine.json")


NAMING = Pipeline(
    [
        node(lambda options: options, "params:segment", "made", name="segment.prepare_data"),
        node(lambda options: options, "params:segment", "map", name="segment.draw_map"),
        node(lambda options: options, "params:evaluate", "scores", name="evaluate"),
    ]
)


def check_named(
    project: Path,
    *,
    segment: dict[str, object],
    others: list[dict[str, object]] | None = None,
    pipeline: Pipeline = NAMING,
) -> None:
    catalog = DataCatalog.from_config({"made": {"type": "json.JSONDataset", "filepath": "data/made.json"}})
    catalog["params:segment"] = MemoryDataset(TaskParameters.model_validate({"task": "segment", **segment}))
    catalog["params:evaluate"] = MemoryDataset(EvaluateParameters.model_validate({"others": others or []}))
    check_named_paths(pipeline, catalog, project)


def test_every_path_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    timm = {"name": "resnet", "model": "resnet18", "weights": "nowhere.pth"}
    with pytest.raises(NamedFileError) as told:
        check_named(tmp_path, segment={"data": {"folder": "field"}, "map": {"raster": "scene.tif"}}, others=[timm])
    for part in (
        "evaluate.others.0.weights is 'nowhere.pth'",
        "segment.data.folder is 'field'",
        "segment.map.raster is 'scene.tif'",
        f"start from {Path.cwd()}",
    ):
        assert part in str(told.value)
    with pytest.raises(NamedFileError, match=r"segment\.data\.folder is 'xxx"):
        check_named(tmp_path, segment={"data": {"folder": "x" * 1000}})


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("s3://user:secret@bucket/scene.tif", "an address: download"),
        ("https://host/scene.tif?sig=secret", "an address: download"),
        ("/vsicurl/https://host/scene.tif", "an address: download"),
        ("pipe", "a pipe"),
        ("/dev/zero", "a device"),
    ],
)
def test_what_can_be_no_path_is_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(NamedFileError, match=rf"segment\.map\.raster is .*{why}") as told:
        check_named(tmp_path, segment={"map": {"raster": path}})
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.write_bytes(b"II*\0"), "cannot be opened"),
        (lambda path: path.write_text("a,b"), "its first bytes are of none of"),
        (lambda path: write_tif(path, crs="EPSG:4326", gsd=0.001, left=13, top=53), "not in metres: reproject it"),
    ],
)
@pytest.mark.parametrize("key", ["segment.map.raster", "detect_change.map.raster_before", "embed.raster"])
def test_a_raster_that_is_none_is_told_before_the_run(
    tmp_path: Path, make: Callable[[Path], object], why: str, key: str
) -> None:
    good, bad = write_tif(tmp_path / "good.tif"), tmp_path / "bad.tif"
    make(bad)
    group, _, rest = key.partition(".")
    node_of = {"embed": "embed.raster"}.get(group, f"{group}.draw_map")
    pipeline = Pipeline([node(lambda options: options, f"params:{group}", "map", name=node_of)])

    def catalog(path: Path) -> DataCatalog:
        if group == "embed":
            return DataCatalog({"params:embed": MemoryDataset(EmbedParameters(raster=str(path)))})
        rasters = {"raster": str(path)} if "before" not in rest else {"raster": str(good), "raster_before": str(path)}
        options = TaskParameters.model_validate({"task": group, "map": rasters})
        return DataCatalog({f"params:{group}": MemoryDataset(options)})

    with pytest.raises(InputError, match=rf"^{key}: .*bad\.tif.*{why}"):
        check_named_rasters(pipeline, catalog(bad), tmp_path)
    check_named_rasters(pipeline, catalog(good), tmp_path)


@pytest.mark.parametrize("text", ["", " ", "a\0b", "\ud800", "x/\udcff.tif"])
@pytest.mark.parametrize(
    ("kind", "group"),
    [
        (PretrainParameters, {"start": {"weights": "{}"}}),
        (PretrainParameters, {"teacher": {"file": "{}"}}),
        (IngestParameters, {"folder": "{}"}),
        (IngestParameters, {"locations": {"polygons": "{}"}}),
        (EmbedParameters, {"raster": "{}"}),
    ],
)
def test_what_names_nothing_is_no_path_in_any_group(
    kind: type[Parameters], group: dict[str, object], text: str
) -> None:
    def filled(value: object) -> object:
        return {key: filled(one) for key, one in value.items()} if isinstance(value, dict) else text

    with pytest.raises(ValidationError, match=r"is an empty path|has a zero byte|has bytes in its name"):
        kind.model_validate(filled(group))


@given(st.text(min_size=1, max_size=300))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_for_a_path_is_taken_or_named(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(NamedFileError, ValidationError):
        check_named(tmp_path, segment={"data": {"folder": text}})


def test_what_is_there_or_made_by_the_run_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "field").mkdir()
    check_named(tmp_path, segment={"data": {"folder": "field"}})
    check_named(tmp_path, segment={"data": {"folder": str(tmp_path / "data" / "made.json")}})
    with pytest.raises(NamedFileError, match="data/other"):
        check_named(tmp_path, segment={"data": {"folder": str(tmp_path / "data" / "other")}})


def test_a_path_is_asked_for_only_where_its_reader_runs(tmp_path: Path) -> None:
    both: dict[str, object] = {"data": {"folder": "moved away"}, "map": {"raster": "scene.tif"}}
    with pytest.raises(NamedFileError, match=r"segment\.map\.raster") as told:
        check_named(tmp_path, segment=both, pipeline=NAMING.only_nodes("segment.draw_map"))
    assert "moved away" not in str(told.value)
    with pytest.raises(NamedFileError, match=r"segment\.map\.raster"):  # it opens what is to be mapped, too
        check_named(tmp_path, segment=both, pipeline=NAMING.only_nodes("segment.prepare_data"))
    check_named(tmp_path, segment=both, pipeline=NAMING.only_nodes("evaluate"))


def test_nothing_to_embed_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"")
    embedding = Pipeline([node(lambda options: options, "params:embed", "embeddings")])
    catalog = DataCatalog({"params:embed": MemoryDataset(EmbedParameters())})
    with pytest.raises(InputError, match=r"embed\.raster names no raster and no stage of the chain makes scenes"):
        check_embedded(embedding, catalog)
    check_embedded(Pipeline([node(lambda scenes, o: o, ["scenes", "params:embed"], "embeddings")]), catalog)
    check_embedded(WRITING, catalog)
    catalog["params:embed"] = MemoryDataset(EmbedParameters(raster=str(tmp_path / "scene.tif")))
    check_embedded(embedding, catalog)


TRAINING = Pipeline(
    [
        node(lambda sets, p: p, ["sets", "params:pretrain"], "pretrained_model", name="pretrain"),
        node(lambda options: options, "params:classify", "data", name="classify.prepare_data"),
        node(lambda data, model: model, ["data", "pretrained_model"], "model", name="classify.finetune"),
    ]
)


def check_trained(
    project: Path, bands: list[str], *, pipeline: Pipeline = TRAINING, options: dict[str, object] | None = None
) -> None:
    group = yaml.safe_load((Path(__file__).parents[2] / "conf/base/parameters_pretrain.yml").read_text())["pretrain"]
    group["model"]["options"] |= options or {}
    task = TaskParameters.model_validate({"task": "classify", "bands": bands})
    entry = {"type": "a2mae.pipelines.datasets.ModelDirectory", "filepath": "model"}
    catalog = DataCatalog.from_config({"pretrained_model": entry})
    catalog["params:pretrain"] = MemoryDataset(PretrainParameters.model_validate(group))
    catalog["params:classify"] = MemoryDataset(task)
    check_model(pipeline, catalog, project)


def test_a_model_that_cannot_be_built_and_bands_that_do_not_fit_are_said_together_before_the_run(
    tmp_path: Path,
) -> None:
    check_trained(tmp_path, ["red", "green", "blue"])
    with pytest.raises(ModelParametersError) as told:
        check_trained(tmp_path, ["red", "nir", "green", "blue"], options={"dept": 3})
    assert "pretrain.model: a2mae_vit_" in str(told.value) and "did you mean 'depth'?" in str(told.value)
    assert "classify: the encoder takes 3 bands at a time; found 4 (red, nir, green, blue)" in str(told.value)


def test_bands_are_held_against_a_model_that_is_there(tmp_path: Path) -> None:
    alone = TRAINING.only_nodes("classify.prepare_data", "classify.finetune")
    check_trained(tmp_path, ["red", "nir"], pipeline=alone)  # none there: the check of inputs says so
    model = create_model("mae_vit_tiny_patch8", embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1, in_chans=4)
    save_pretrained(model, tmp_path / "model", config={})
    check_trained(tmp_path, ["red", "green", "blue", "nir"], pipeline=alone)
    with pytest.raises(ModelParametersError, match="takes 4 bands at a time; found 5"):
        check_trained(tmp_path, ["red", "green", "blue", "nir", "swir16"], pipeline=alone)
    (tmp_path / "model/config.json").write_text("")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        check_trained(tmp_path, ["red"], pipeline=alone)


def test_an_encoder_that_a_task_names_is_looked_at_before_its_data_is_prepared(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "weights.safetensors")
    alone = Pipeline([node(lambda options: options, "params:classify", "data", name="classify.prepare_data")])
    for model, wrong in (("test_resnet", None), ("test_vit", r"classify\.start: .*weights\.safetensors does not fit")):
        start = {"model": model, "weights": str(tmp_path / "weights.safetensors")}
        task = {"task": "classify", "bands": ["red", "nir"], "start": start}
        catalog = DataCatalog({"params:classify": MemoryDataset(TaskParameters.model_validate(task))})
        if wrong is None:
            check_model(alone, catalog, tmp_path)
            continue
        with pytest.raises(ModelParametersError, match=wrong):
            check_model(alone, catalog, tmp_path)


WRITING = Pipeline([node(lambda: 1, None, "first"), node(lambda: 2, None, "second")])


def check_written(project: Path, first: str, second: str) -> None:
    catalog = DataCatalog.from_config(
        {name: {"type": "json.JSONDataset", "filepath": path} for name, path in (("first", first), ("second", second))}
    )
    check_outputs(WRITING, catalog, project)


def test_folders_that_are_yet_to_be_made_are_fine(tmp_path: Path) -> None:
    check_written(tmp_path, "data/01_raw/deep/one.json", "data/two.json")
    assert not (tmp_path / "data").exists(), "looking made a folder"


def test_a_file_in_a_folders_place_is_named_with_all_that_needs_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(OutputFolderError, match=r"data is a file, needed for first, second.*data_root"):
        check_written(tmp_path, "data/01_raw/one.json", "data/two.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o555)
    with pytest.raises(OutputFolderError, match=r"data is not writable by this user, needed for first"):
        check_written(tmp_path, "data/01_raw/one.json", "elsewhere/two.json")
