"""Task models: encoder and head, finetuned from either start."""
