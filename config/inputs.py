"""Finds the files that a run reads. Importing this is cheap: a wrong path is reported before torch is imported."""

from pathlib import Path

from config.config_regression import Dataset
from utils.errors import UserError


def find_features(named: Path | None, dataset: Dataset, aligned: bool) -> Path:
    """The feature file: --dataPath, or the dataset's own. Raises UserError if it is missing."""
    places = [named] if named else dataset.feature_files(aligned)
    path = next(filter(Path.exists, places), None)
    if path is None:
        advice = "name one with --dataPath, or set SELF_MM_DATA to the datasets' folder; --datasetName demo needs none"
        raise UserError(f"{' or '.join(map(str, places))}: no such feature file; {advice}")
    return path
