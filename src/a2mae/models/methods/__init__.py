"""The ways of pretraining: A²-MAE, Scale-MAE, MAE, SatMAE, with their decoders and their names."""
