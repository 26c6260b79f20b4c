"""Paths of the files that a MOSI run writes, relative to the working directory."""

from pathlib import Path

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")
SUMMARY_CSV = Path("results/results/normals/mosi-regression.csv")


def checkpoint(seed: int = 1, models: Path = Path("results/models"), dataset: str = "mosi") -> Path:
    """The last checkpoint of a seed. Its name ends with what differs from the default settings."""
    files = models.glob(f"self_mm-{dataset}-regression-{seed}*/config.json")
    return max(files, key=lambda file: file.stat().st_mtime_ns).parent


def state(seed: int = 1) -> Path:
    """The state of the only unfinished training of a seed, or the pattern of its name."""
    pattern = f"results/models/self_mm-mosi-regression-{seed}*-training.safetensors"
    return next(Path().glob(pattern), Path(pattern))
