"""Packaging of posenc_jax; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "posenc_jax/__init__.py").read_text())[1]

setup(
    name="posenc_jax",
    version=VERSION,
    description="Positional encodings for Transformers, in JAX and Flax",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["posenc_jax", "posenc_jax.*"]),
    package_data={"posenc_jax": ["py.typed"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax",
        "orbax-checkpoint",
        "chex",
        "absl-py",
        "ml_collections",
        "numpy",
        "rich",
        "matplotlib",
    ],
    extras_require={
        "test": ["pytest", "pytest-xdist", "ruff", "mypy"],
        "data": ["datasets"],
        "images": ["mlxtend", "pillow"],
        "icons": ["fonticon-materialdesignicons7", "pillow"],
        "video": ["mlxtend", "scikit-video", "av"],
        "plots": ["matplotlib"],
        "tensorboard": ["tensorboardX"],
        "benchmark": ["torch"],
        "parity": ["pytest", "torch", "transformers"],
    },
)
