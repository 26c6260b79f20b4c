"""Paths of the files that a MOSI run with seed 1 writes, relative to the working directory."""

from pathlib import Path

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")
SUMMARY_CSV = Path("results/results/normals/mosi-regression.csv")
CHECKPOINT = Path("results/models/self_mm-mosi-regression-1")
