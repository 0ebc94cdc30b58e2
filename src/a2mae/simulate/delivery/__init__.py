"""What a provider hands out: files, their catalog, and beside them the truth."""
