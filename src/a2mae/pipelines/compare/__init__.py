"""Compare: pretraining methods on the same data, size, tokens and steps, judged alike."""
