"""What decides results beside code and data: versions, and for a model the instructions its sums were made with."""

from __future__ import annotations

import platform
from importlib import metadata

from a2mae.processes import cores

LIBRARIES = ("numpy", "scipy", "scikit-image", "scikit-learn", "rasterio", "odc-geo", "zarr", "pyarrow", "pandas")
MODEL_LIBRARIES = ("torch", "timm", "lightning", "safetensors")


def environment(*, with_torch: bool) -> dict[str, str]:
    """Versions of Python and of the libraries that compute; no name of a machine, person or folder.

    Args:
        with_torch: Also torch's side, with the CPU's instruction set and how many cores may be used, for each of which
            there is a thread where the parameters name no other number: they decide in which order sums are added.
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}".lower()}
    for name in (*LIBRARIES, *(MODEL_LIBRARIES if with_torch else ())):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if with_torch:
        import torch  # noqa: PLC0415 (only for stages that use it)

        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        found["cores"] = str(cores())
    return found
