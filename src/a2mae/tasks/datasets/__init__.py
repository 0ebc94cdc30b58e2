"""Task data: samples with truth, from folders, benchmarks and the simulated Earth, in one form."""
