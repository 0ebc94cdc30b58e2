"""From scenes to pixels on a footprint's grid: masks, one resampling, stored integers."""
