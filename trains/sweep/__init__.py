"""Searches for hyper-parameters, with Optuna."""
