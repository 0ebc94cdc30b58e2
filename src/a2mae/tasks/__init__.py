"""Classification, segmentation, change detection; kNN, linear probe; tiled inference."""
