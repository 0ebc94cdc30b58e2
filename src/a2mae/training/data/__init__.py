"""From the store to a batch: which sets, which crops, read by number and prepared."""
