"""The image-set store: sharded arrays, read by training and tasks, written once."""
