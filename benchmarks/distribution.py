"""Compares the results of many demo seeds with the released code's, where dropout rules out a replay.

    python -m benchmarks.distribution

The released code's runs are in tests/records/demo_released_seeds.json: its own loop, on the same corpus, encoder and
hyper-parameters. For each score, the Kolmogorov-Smirnov test gives the probability p of samples at least this different if both
codes have the same distribution. Fails if a p is below 0.01 or undefined.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from scipy.stats import ks_2samp

from benchmarks.tables import markdown
from config.config_regression import DATASETS, REPOSITORY, data_root
from config.inputs import find_features
from data.demo import ensure_demo

RELEASED_RUNS = REPOSITORY / "tests" / "records" / "demo_released_seeds.json"
CORPUS = "7f1dd9a0538ef35066ac64418ae8a517c99d4f6c"  # the SHA-1 of the released runs' feature file
SCORES = {"MAE": 4, "Corr": 4, "epochs": 1}  # with the digits to print
LOWEST_P = 0.01


def check_corpus() -> None:
    """Raises SystemExit if the demo corpus is not that of the released runs."""
    ensure_demo(data_root() / "DEMO")
    features = find_features(None, DATASETS["demo"], aligned=False)
    if hashlib.sha1(features.read_bytes()).hexdigest() != CORPUS:
        raise SystemExit(f"{features}: not the corpus of {RELEASED_RUNS.name}, with SHA-1 {CORPUS}")


def train(seeds: list[int], jobs: int, folder: Path) -> pd.DataFrame:
    """Returns the seeds CSV of a run."""
    flags = ["--datasetName", "demo", "--seeds", *map(str, seeds), "--jobs", str(jobs), "--gpu_ids", "-1"]
    folders = ["--model_save_dir", str(folder / "models"), "--res_save_dir", str(folder / "results")]
    variables = os.environ | {"SELF_MM_DATA": str(data_root().resolve())}
    command = [sys.executable, str(REPOSITORY / "run.py"), *flags, *folders]
    subprocess.run(command, cwd=folder, env=variables, check=True)
    return pd.read_csv(folder / "results" / "normals" / "demo-regression-seeds.csv")


def compare(ours: pd.DataFrame, released: pd.DataFrame) -> tuple[str, bool]:
    """Returns a table of both samples, and whether every p is at least LOWEST_P."""
    rows, similar = [], True
    for score, digits in SCORES.items():
        samples = [table[score].round(4) for table in (released, ours)]
        p = ks_2samp(*samples).pvalue
        similar &= bool(p >= LOWEST_P)  # not if it is NaN
        rows.append([score, *(f"{x.mean():.{digits}f} ± {x.std():.{digits}f}" for x in samples), f"{p:.2f}"])
    header = ["mean ± standard deviation", f"released, {len(released)} seeds", f"ours, {len(ours)} seeds", "p"]
    return markdown(header, rows), similar


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distribution", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 21)), help="default: 1 to 20")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run in parallel; default 1")
    args = parser.parse_args(argv)
    if len(args.seeds) < 2:
        parser.error("--seeds: at least two")
    check_corpus()
    with tempfile.TemporaryDirectory() as folder:
        ours = train(args.seeds, args.jobs, Path(folder))
    table, similar = compare(ours, pd.DataFrame(json.loads(RELEASED_RUNS.read_text())))
    verdict = "no difference between the distributions is seen" if similar else "the distributions differ"
    print(f"\n{table}\n\n{verdict} (the least p allowed is {LOWEST_P})")
    return 0 if similar else 1


if __name__ == "__main__":
    sys.exit(main())
