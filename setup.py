"""What `pyproject.toml` cannot say: the wheel carries the configuration that a project of one's own begins with."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROJECT = ("conf/base/*.yml", "conf/logging.yml", "conf/no_simulation.json")
"""Copied below `a2mae/project/`; a checkout has them at its root."""


class BuildWithConfiguration(build_py):
    """Copies the files beside the package's own."""

    def run(self) -> None:
        """Copy modules and package data as setuptools does, then ours."""
        super().run()
        if self.editable_mode:
            return
        for pattern in PROJECT:
            for path in sorted(ROOT.glob(pattern)):
                target = Path(self.build_lib, "a2mae/project", path.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithConfiguration})
