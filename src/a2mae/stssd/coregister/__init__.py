"""Make registered image sets of scenes: survey the locations, solve for the shifts, warp once, write the store."""
