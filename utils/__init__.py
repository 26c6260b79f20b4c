"""Metrics, results, checkpoints and the small helpers that the rest stands on."""
