"""Finetuning: an encoder with a task's head, from the pretrained weights and from the random_init baseline."""
