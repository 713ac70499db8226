"""Problems -> teacher -> verdicts -> selection -> data set and its card.

In: a `CurateConfig`. Out: `dataset.jsonl` in the published schema, with all that led to it. Imports no jax.
"""
