"""Pretraining from an image-set store: specification, batches, steps, loop, checkpoints, in a process of its own."""
