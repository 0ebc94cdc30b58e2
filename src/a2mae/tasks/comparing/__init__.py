"""Pretraining methods on the same data, size, tokens and steps, within a budget of hours."""
