"""Measures trained models, beyond the trained length and inside."""
