"""Segmentation: the task template under its namespace."""
