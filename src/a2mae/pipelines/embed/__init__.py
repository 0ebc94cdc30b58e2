"""Embed: any raster → one vector per patch."""
