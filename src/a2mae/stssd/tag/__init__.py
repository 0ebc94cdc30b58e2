"""Tag registered images: anchors, GeoSOT codes, splits by location, statistics and the four properties."""
