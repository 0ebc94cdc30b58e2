"""Metrics of predictions, with intervals over places, and the table of all scores."""
