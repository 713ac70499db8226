"""Reasoning distillation on TPU: problems to traces, traces to shards, shards to a student, a student to scores."""

__version__ = "0.1.0"
