"""The sampler: token ids in, token ids out, as they are complete.

In: parameters, an architecture, requests. Out: completions. Importing this loads no jax.
"""
