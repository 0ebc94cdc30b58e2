"""What an encoder is worth: frozen by kNN and probes, finetuned beside its twin."""
