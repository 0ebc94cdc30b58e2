"""Kedro datasets for what kedro-datasets lacks."""
