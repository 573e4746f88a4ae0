"""Packages posenc_jax; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "posenc_jax/__init__.py").read_text())[1]

REQUIRED = [
    "jax>=0.10.1",
    "flax>=0.12.4",
    "optax",
    "orbax-checkpoint>=0.12.8",
    "chex",
    "absl-py",
    "numpy",
]
# The packages that experiments, benchmarks and the gallery need beyond those.
EXPERIMENTS = [
    "ml_collections",
    "rich",
    "matplotlib",
    "pillow",
    "pyyaml",
    "scipy",
    "pandas",
    "jinja2",
    "etils",
    "filelock",
    "fsspec",
]
# The packages that read and write the files of published models.
PRETRAINED = ["safetensors", "gguf", "tokenizers", "huggingface-hub"]

setup(
    name="posenc_jax",
    version=VERSION,
    description="Positional encodings for Transformers, in JAX and Flax",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="positional encoding, RoPE, ALiBi, length extrapolation, Transformer, JAX, Flax",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    entry_points={"console_scripts": ["posenc = posenc_jax.cli:main"]},
    packages=find_packages(include=["posenc_jax", "posenc_jax.*"]),
    package_data={"posenc_jax": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require={
        "experiments": EXPERIMENTS,
        "pretrained": PRETRAINED,
        # With pytest 9.2, pytest-xdist 3.8 does not see which tests must share a worker.
        "test": [*EXPERIMENTS, *PRETRAINED, "submitit", "grain", "datasets", "jsonschema"]
        + ["pytest<9.2", "pytest-xdist", "ruff", "mypy", "types-PyYAML", "pybtex"]
        + ["equinox", "dm-haiku", "cogapp"],
        "site": [*EXPERIMENTS, "sphinx", "myst-nb", "furo", "sphinx-copybutton"]
        + ["sphinx-mathjax-offline", "pybtex"],
        "data": ["datasets"],
        "grain": ["grain"],
        "packages": ["pypi-simple"],
        "images": ["mlxtend"],
        "icons": ["fonticon-materialdesignicons7"],
        "video": ["mlxtend", "scikit-video", "av"],
        "tensorboard": ["tensorboardX"],
        "wandb": ["wandb>=0.19.10"],
        "slurm": ["submitit"],
        "gcs": ["gcsfs"],
        # XLA's compiler for TPUs, which works without one: for --topology and `make tpu-check`.
        "tpu_check": [*EXPERIMENTS, "libtpu"],
        "harness": [*EXPERIMENTS, *PRETRAINED, "lm_eval"],
        "benchmark": [*EXPERIMENTS, *PRETRAINED, "torch", "transformers"],
        # x-transformers has a release every few days, some of which rename what parity/ calls.
        "parity": [*PRETRAINED, "pytest", "torch", "transformers"]
        + ["equinox", "x-transformers==2.31.10"],
    },
)
