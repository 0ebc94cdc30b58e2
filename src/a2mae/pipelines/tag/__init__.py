"""The `tag` stage."""
