"""Attention with one signature and several implementations; see `attend`."""

from stratos_jax.model.attention.api import AttentionSharding, attend
from stratos_jax.model.attention.context import zigzag_order

__all__ = ["AttentionSharding", "attend", "zigzag_order"]
