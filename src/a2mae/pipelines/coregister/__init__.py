"""The `coregister` stage."""
