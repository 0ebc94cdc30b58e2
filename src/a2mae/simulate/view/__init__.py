"""What lies between the ground and the counts: sun, clouds, optics, and the provider's masks."""
