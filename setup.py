"""Package metadata, dependency ranges and extras; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "stratos_jax/__init__.py").read_text()).group(1)

REQUIRED = [
    "jax>=0.10,<0.12",
    "flax>=0.12,<0.13",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.12.4,<0.13",
    "tensorflow-datasets>=4.9.10,<5",
    "grain>=0.2.16,<0.3",
    "array-record>=0.8.1,<0.9",
    "etils[epath-gcs]>=1.12",
    "transformers>=5.0,<6",
    "tokenizers>=0.22",
    "jinja2>=3.1",
    "safetensors>=0.6",
    "sentencepiece>=0.2.1",
    "openai>=2.0,<4",
    "sympy>=1.13,<2",
    "math-verify>=0.9,<0.10",
    "google-cloud-storage>=3.4,<4",
    "google-crc32c>=1.6",
    "numpy>=2.0",
    "rich>=13",
    "matplotlib>=3.9",
]
EXTRAS = {
    "tpu": ["jax[tpu]>=0.10,<0.12", "tokamax>=0.0.12"],
    "cuda": ["jax[cuda13]>=0.10,<0.12"],
    "curate": ["ray>=2.44,<3"],
    "eval": ["ray>=2.44,<3"],
    "serve": ["aiohttp>=3.10"],
    "qlora": ["qwix>=0.1.7"],
    "bench": ["datasets>=4", "trl>=1.0", "gcsfs"],
    "dev": [
        "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.9", "basedpyright>=1.30",
        "torch>=2.6", "gcsfs", "tiktoken>=0.9", "dashscope", "jax[tpu]>=0.10,<0.12", "ray>=2.44,<3", "aiohttp>=3.10",
        "tensorboardX>=2.6",
    ],
}  # fmt: skip

setup(
    name="stratos_jax",
    version=VERSION,
    description="Reasoning distillation on TPU: problems, traces, shards, training, conversion, evaluation",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["stratos_jax", "stratos_jax.*"]),
    package_data={"stratos_jax": ["**/*.json", "**/*.html"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["stratos = stratos_jax.cli:main"]},
)
