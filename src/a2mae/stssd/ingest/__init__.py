"""The `ingest` stage: find the scenes of a source, check them, and lay out the locations."""
