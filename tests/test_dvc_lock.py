"""The committed `dvc.lock`: whole, of one run, and whoever's outputs differ from it is told which and since what."""

import json
import shutil
import subprocess
import warnings

import pytest
import yaml

from a2mae.dvc_lock import main
from a2mae.provenance import lock as dvc_lock
from a2mae.provenance.code import environment
from helpers.checkout import ROOT, changes, run

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]


def paths(items) -> set[str]:
    return {item if isinstance(item, str) else next(iter(item)) for item in items}


def test_the_committed_lock_is_whole_and_of_one_run():
    """Older than the code it may be while somebody works on that (a warning says so); torn or mixed it may not."""
    text = (ROOT / "dvc.lock").read_text("utf-8")
    locked = yaml.safe_load(text)["stages"]
    assert set(locked) == set(STAGES)
    made: dict[str, str] = {}
    for name, stage in STAGES.items():
        assert locked[name]["cmd"] == stage["cmd"]
        for entry in (*locked[name]["deps"], *locked[name]["outs"]):
            assert len(entry["md5"].removesuffix(".dir")) == 32 and entry["size"] > 0, (name, entry)
        for dep in locked[name]["deps"]:
            assert made.get(dep["path"], dep["md5"]) == dep["md5"], f"{name} read another {dep['path']} than was made"
        made |= {out["path"]: out["md5"] for out in locked[name]["outs"]}
        assert {file for item in stage["params"] for file in item} == set(locked[name]["params"])
    assert {"python", "torch", "cpu_capability"} <= dvc_lock.made_on(text).keys()
    older = {name: since for name, since in ahead(locked).items() if since}
    if older:
        warnings.warn(f"dvc.lock is older than the code: `make dvc-lock` once that is committed. {older}", stacklevel=1)


def ahead(locked) -> dict[str, list[str]]:
    """By stage, what has changed since the lock was made: its code, parameters, what it depends on, what it makes."""
    since = {
        verdict.stage: list(verdict.since) for verdict in dvc_lock.verdicts(ROOT, yaml.safe_dump({"stages": locked}))
    }
    for name, stage in STAGES.items():
        outs = paths([*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])])
        since[name] += sorted(outs ^ {out["path"] for out in locked[name]["outs"]})
        since[name] += sorted(paths(stage["deps"]) ^ {dep["path"] for dep in locked[name]["deps"]})
    return since


@pytest.mark.slow
@pytest.mark.timeout(7200)  # the whole chain: eight minutes of two cores; a busy machine may take long
def test_a_fresh_clone_writes_the_bytes_of_the_committed_lock(tmp_path):
    """`dvc repro` of the last commit from nothing, on the machine that made the lock, or one like it."""
    lock = dvc_lock.committed(ROOT)
    here = environment(with_torch=True)
    if dvc_lock.made_on(lock) != here:
        pytest.skip(f"the lock is of another environment: {dvc_lock.made_on(lock)}, this is {here}")
    if since := {verdict.stage: verdict.since for verdict in dvc_lock.verdicts(ROOT, lock) if verdict.since}:
        pytest.skip(f"dvc.lock is older than the code: `make dvc-lock` first. {since}")
    clone = tmp_path / "clone"
    dvc_lock.repro_in_clone(ROOT, clone)
    told = run(clone, "python", "-m", "a2mae.dvc_lock")
    assert told.returncode == 0, told.stdout


MAKE = "import pathlib\npathlib.Path('out').mkdir(exist_ok=True)\nfor n in 'ab': pathlib.Path('out', n).write_text(n)\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with one stage, made by DVC itself and committed with its lock."""
    folder = tmp_path_factory.mktemp("made")
    stage = {
        "cmd": "python src/stage/make.py",
        "deps": ["src/stage"],
        "params": [{"p.yml": ["group"]}],
        "outs": ["out"],
    }
    (folder / "src/stage/__pycache__").mkdir(parents=True)
    (folder / "src/stage/make.py").write_text(MAKE)
    (folder / "src/stage/__pycache__/make.pyc").write_bytes(b"ignored")
    (folder / "p.yml").write_text("group: {size: 3}\n")
    (folder / ".dvcignore").write_text((ROOT / ".dvcignore").read_text("utf-8"))
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for command in (["init", "-q"], ["repro", "-q"]):
        done = run(folder, "dvc", *command)
        assert done.returncode == 0, done.stderr
    commit(folder)
    return folder


@pytest.fixture
def project(made, tmp_path):
    return shutil.copytree(made, tmp_path / "project")


def commit(folder) -> None:
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def said(project, monkeypatch, capsys):
    monkeypatch.chdir(project)

    def told() -> tuple[int, str]:
        code = main([])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return told


def test_outputs_are_hashed_as_dvc_does(said):
    assert said() == (0, "make          ok: 1 outputs\n1 outputs are those of dvc.lock\n")


def test_what_differs_is_named_and_since_what(project, said):
    (project / "out/b").write_text("c")
    code, text = said()
    assert code == 1 and "make          DIFFERS" in text and "CHANGED  out\n" in text and "since" not in text
    (project / "out/b").write_text("b")
    (project / "out/more").write_text("")
    assert said()[0] == 1, "a file more is another folder"
    (project / "out/more").unlink()
    (project / "src/stage/make.py").write_text(MAKE + "\n")
    (project / "p.yml").write_text("group: {size: 4}\n")
    code, text = said()
    assert code == 0 and "since the lock was made changed: src/stage, p.yml:group" in text
    (project / "out/a").unlink()
    (project / "out/b").unlink()
    (project / "out").rmdir()
    code, text = said()
    assert code == 1 and "MISSING  out\n" in text


def test_a_stage_that_the_lock_does_not_know_is_named_and_one_that_has_gone_is_not(project, said):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["gone"] = lock["stages"]["make"] | {"outs": [{"path": "nowhere", "md5": "0" * 32, "size": 1}]}
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    stages["new"] = {"cmd": "true", "deps": ["src/stage"], "outs": ["other"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    commit(project)
    code, text = said()
    assert code == 1 and "new           NOT IN THE LOCK" in text and "make          ok" in text and "gone" not in text


def test_it_is_the_committed_lock_that_counts(project, said):
    (project / "src/stage/make.py").write_text(MAKE.replace("write_text(n)", "write_text(n + n)"))
    assert run(project, "dvc", "repro", "-q").returncode == 0
    code, text = said()
    assert code == 1 and "CHANGED  out" in text, "DVC has written the workspace's lock anew; the claim is the commit's"
    commit(project)
    assert said()[0] == 0


def test_another_environment_is_said(project, said):
    lock = project / "dvc.lock"
    lock.write_text(dvc_lock.HEADER + json.dumps({"python": "0.9"}) + "\n" + lock.read_text())
    commit(project)
    (project / "out/a").write_text("x")
    code, text = said()
    assert code == 1 and "(the lock: 0.9)" in text
    assert run(project, "dvc", "repro", "-q", "-f").returncode == 0
    assert dvc_lock.made_on(lock.read_text()) == {"python": "0.9"}, "DVC keeps the lines"
    assert changes(project) == "", "the same bytes leave the same lock"
    assert said()[0] == 0


def test_without_a_lock_it_is_said_how_to_make_one(project, said):
    subprocess.run(["git", "rm", "-q", "--cached", "dvc.lock"], cwd=project, check=True)
    commit_rest = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "none"]
    subprocess.run(commit_rest, cwd=project, check=True)
    code, text = said()
    assert code == 2 and "make dvc-lock" in text


def test_the_lock_is_made_from_a_commit_in_a_clone(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "src/stage/more.py").write_text("")
    assert main(["--write"]) == 2 and "src/stage/more.py" in capsys.readouterr().err, "commit first"
    before = yaml.safe_load((project / "dvc.lock").read_text("utf-8"))
    (project / "src/stage/more.py").unlink()
    (project / "out/a").write_text("not in git")
    (project / "dvc.lock").write_text("stages: {}")
    assert main(["--write"]) == 0
    text = (project / "dvc.lock").read_text("utf-8")
    assert yaml.safe_load(text)["stages"]["make"]["outs"] == before["stages"]["make"]["outs"]
    assert "python" in dvc_lock.made_on(text)


def test_the_lock_comes_with_values_that_other_bytes_are_compared_with(project, said, monkeypatch):
    """Of a page or a text that is its size; of tables, rasters and scores see tests/provenance/test_reference.py."""
    assert main(["--write"]) == 0
    commit(project)
    (project / "out/b").write_text("c")
    code, text = said()
    assert code == 0 and "ok: 0 outputs of the same bytes, 1 within tolerance" in text and "within   out: " in text
    (project / "out/b").write_text("much longer than it was")
    code, text = said()
    assert code == 1 and "CHANGED  out: 24 bytes, 2 were expected" in text
