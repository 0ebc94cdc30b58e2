"""Registration: how far images lie from one another, and where each of them belongs."""
