"""Scores of an encoder: frozen by kNN and probes, finetuned beside its random_init baseline."""
