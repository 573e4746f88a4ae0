"""Measures posenc_jax on the device that JAX finds; ``__main__.py`` lists the measurements."""
