"""Measures posenc_jax on whatever device JAX finds; ``__main__.py`` says what and how."""
