"""The `simulate` stage."""
