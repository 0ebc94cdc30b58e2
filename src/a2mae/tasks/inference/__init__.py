"""Rasters of any size, window by window: classes, change, embeddings."""
