"""Metrics, errors, files, devices and other helpers. Imports none of the other folders."""
