"""Measures speed, memory and fault tolerance. One of these commands prints each figure that the documentation quotes."""
