"""What is seen of a run: curves, held-out measures, speed, W&B."""
