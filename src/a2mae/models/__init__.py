"""A²-MAE, Scale-MAE and MAE: encodings, masking, encoders, decoders. Torch and timm only."""
