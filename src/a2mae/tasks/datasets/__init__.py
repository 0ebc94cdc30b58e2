"""Task data: labelled samples from folders, benchmarks and the simulated Earth, in one format."""
