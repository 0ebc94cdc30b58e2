"""Simulate an Earth: scenes as a provider would deliver them, and the truth beside them."""
