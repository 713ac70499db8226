"""Eight fake CPU devices for every test, set before jax is loaded; no accelerator, no network."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tests/helpers.py

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_GCE_CHECK"] = "true"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

from fake_gcs.plugin import fake_gcs  # noqa: E402, F401
