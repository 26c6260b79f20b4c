"""Where a run on MOSI writes its files, from the folder that it was called in; the checkpoint is that of seed 1."""

from pathlib import Path

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")
SUMMARY_CSV = Path("results/results/normals/mosi-regression.csv")
CHECKPOINT = Path("results/models/self_mm-mosi-regression-1")
