"""What comes of embeddings and maps: search, polygons, areas, a map page, files that other tools open."""
