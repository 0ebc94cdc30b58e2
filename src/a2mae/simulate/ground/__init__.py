"""What lies on the simulated ground, and what happens to it between two periods."""
