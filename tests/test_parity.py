"""Recorded runs of the authors' released code and of MMSA, replayed: labels, centres, losses, metrics and predictions.

The records are in tests/records. PARITY_DIRS names further folders, separated by os.pathsep; METRICS_CASES names a further
file of metrics cases. What is computed in float64 must agree to 1e-9. In float32 training amplifies the rounding errors of a sum's
order by orders of magnitude, so such records show less, and are replayed in one pass only.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ranks import fork_ranks
from recorded import IN_REPOSITORY, RECORDS, precision, replay

from config.config_regression import DATASETS
from utils.metrics import METRICS
from utils.ranks import join_ranks

CASES = [path for path in (IN_REPOSITORY / "metrics.json", os.environ.get("METRICS_CASES")) if path]
IN_FLOAT64 = [folder for folder in RECORDS if precision(folder) == "float64"]


def each(records: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", records, ids=lambda folder: folder.name)


@each(RECORDS)
def test_replay_agrees_with_the_recorded_run(folder: Path, tmp_path: Path):
    print(f"{folder.name}: {replay(folder, tmp_path)}")


@each(IN_FLOAT64)
def test_replay_in_passes_agrees_with_the_recorded_run(folder: Path, tmp_path: Path):
    print(f"{folder.name} in passes of 7: {replay(folder, tmp_path, max_clips_per_pass=7)}")


@each(IN_FLOAT64)
def test_replay_on_every_rank_agrees_with_the_recorded_run(folder: Path, tmp_path: Path):
    def each_rank(rank: int) -> None:
        comparison = replay(folder, tmp_path / str(rank), ranks=join_ranks())
        if rank == 0:
            print(f"{folder.name} over 3 ranks: {comparison}")

    assert fork_ranks(3, each_rank) == [0, 0, 0]


@pytest.mark.parametrize("path", CASES, ids=lambda path: Path(path).name)
def test_metrics_match_the_released_code(path: Path):
    for case in json.loads(Path(path).read_text()):
        metrics = METRICS[DATASETS[case["dataset"]].metrics]
        values = metrics(np.float32(case["pred"]), np.float32(case["true"]))
        assert values.keys() == case["expected"].keys()
        for name, expected in case["expected"].items():
            assert values[name] == pytest.approx(expected, abs=1e-6), (case["dataset"], name)
