"""Sources of scenes: a static STAC catalog, a STAC API, a folder of GeoTIFFs. All make the same scenes."""
