"""For every test: threads that wait give up their core, or two test processes keep each other waiting."""

from a2mae.processes import share_cores

share_cores()  # before a test module imports torch
