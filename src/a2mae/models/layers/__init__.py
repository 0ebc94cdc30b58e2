"""What models are made of: pure functions and small modules that know of no method."""
