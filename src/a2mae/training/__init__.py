"""Pretraining: samples, data module, Lightning module, launch."""
