"""Stands in for `python -m build` where nothing may be fetched: the same wheel, by pip and this environment.

`build` makes an environment of its own for each wheel and fetches setuptools from a registry.
"""

import argparse
import subprocess
import sys

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", action="store_true", required=True)
    parser.add_argument("--outdir", required=True)
    given = parser.parse_args()
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", given.outdir, "."]
    sys.exit(subprocess.run([sys.executable, "-m", *command], check=False).returncode)
