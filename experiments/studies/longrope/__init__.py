"""Runs LongRoPE: the search for its factors, progressive extension, short-context recovery."""
