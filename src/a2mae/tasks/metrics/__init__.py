"""Predictions against truth: metrics, intervals over places, pictures."""
