"""A run with its files: opened, trained, saved, resumed, tested, written down."""
