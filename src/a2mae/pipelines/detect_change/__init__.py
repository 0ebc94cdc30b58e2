"""Change detection: the task template under its namespace."""
