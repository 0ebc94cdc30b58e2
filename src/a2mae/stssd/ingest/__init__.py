"""From sources of scenes to the scene, location and refusal tables."""
