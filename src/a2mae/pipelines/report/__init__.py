"""Report: the chain's outputs as one HTML page."""
