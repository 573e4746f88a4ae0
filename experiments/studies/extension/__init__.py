"""Extends a trained RoPE model by every method."""
