"""Conversations become packed rows of tokens on disk, and the loader whose order is a function of (seed, epoch)."""
