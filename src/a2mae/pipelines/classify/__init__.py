"""Classification: the task template under its namespace."""
