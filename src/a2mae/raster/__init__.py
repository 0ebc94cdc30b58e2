"""Rasters: from scenes to the pixels that were seen, on the grid that is asked for."""
