"""Scenes at places become registered image sets: survey, pool, warp, write; by many workers, continued after a kill."""
