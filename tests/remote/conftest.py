"""The tiny simulated world of the STSSD tests, for tests that read its files."""

from ..stssd.conftest import world

__all__ = ["world"]
