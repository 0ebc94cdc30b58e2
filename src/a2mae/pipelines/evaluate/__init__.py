"""Evaluate: frozen encoders by kNN and linear probe, and the table of all scores."""
