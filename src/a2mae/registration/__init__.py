"""How far one image lies from another."""
