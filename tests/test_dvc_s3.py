"""DVC with an S3 remote: who has nothing pulls what was pushed, and no credential is written down."""

import importlib.util
import secrets
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.checkout import changes, checkout, run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dvc_s3") is None, reason="dvc-s3 is absent: pip install -r requirements.lock"
)

# Drawn anew: the checkout has this file in it, and must not be found to hold them.
SECRETS = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
STAGE = {
    "cmd": "python make.py",
    "deps": ["make.py"],
    "outs": ["data/03_primary/sets.zarr", "data/08_reporting/scores.json"],
}
MAKE = """
import pathlib, random
drawn = random.Random(7)
folder = pathlib.Path("data/03_primary/sets.zarr/red/c")
folder.mkdir(parents=True, exist_ok=True)
for number in range(5):
    (folder / str(number)).write_bytes(drawn.randbytes(50_000))
pathlib.Path("data/08_reporting/scores.json").write_text('{"miou": 0.5}')
"""


@pytest.fixture
def server(monkeypatch):
    """An S3-compatible server on loopback; its address and the credentials are in the environment only."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {**SECRETS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    S3FileSystem().mkdir("outputs")
    yield address
    S3FileSystem.clear_instance_cache()
    started.stop()


def dvc(clone: Path, *words: str) -> str:
    done = run(clone, "dvc", *words)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"dvc {' '.join(words)}: {said[-3000:]}"
    return said


def outputs(clone: Path) -> dict[str, bytes]:
    files = [file for out in STAGE["outs"] for file in [clone / out, *(clone / out).rglob("*")] if file.is_file()]
    return {file.relative_to(clone).as_posix(): file.read_bytes() for file in files}


@pytest.mark.timeout(1800)  # a minute of one core; a busy machine may take long
def test_what_is_pushed_to_s3_is_pulled_by_who_has_nothing(server, tmp_path):
    from s3fs import S3FileSystem

    clone = checkout(tmp_path / "clone")
    (clone / "make.py").write_text(MAKE)
    (clone / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": STAGE}}))
    said = dvc(clone, "repro")
    made = outputs(clone)
    assert len(made) == 6
    said += dvc(clone, "remote", "add", "--local", "--default", "ours", "s3://outputs/a2mae")
    said += dvc(clone, "remote", "modify", "--local", "ours", "endpointurl", server)
    assert dvc(clone, "push", "-v").count("\n") > 0
    stored = S3FileSystem().find("outputs/a2mae")
    assert len(stored) == 7, "five chunks, the scores, and the list of the folder"

    before = changes(clone)
    shutil.rmtree(clone / ".dvc/cache")
    for out in STAGE["outs"]:
        shutil.rmtree(clone / out) if (clone / out).is_dir() else (clone / out).unlink()
    assert outputs(clone) == {}
    said += dvc(clone, "pull", "-v")
    assert outputs(clone) == made, "the same bytes"
    said += dvc(clone, "status", "--cloud")
    assert "in sync" in said

    assert changes(clone) == before and ".dvc/config" not in before, "where the remote is stays with this user"
    written = {file: file.read_bytes() for file in clone.rglob("*") if file.is_file()}
    for secret in SECRETS.values():
        assert secret not in said
        assert not [file for file, data in written.items() if secret.encode() in data]
