"""Maps and embeddings of whole rasters, window by window."""
