"""Compares the results of many demo seeds with the released code's, where dropout rules out a replay.

    python -m benchmarks.distribution

The released code's runs are in tests/records/demo_released_seeds.json: its own loop, on the same corpus, encoder and
hyper-parameters. For each score, the Kolmogorov-Smirnov test gives the probability p of samples at least this different if both
codes have the same distribution. Fails if a p is below 0.01.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from scipy.stats import ks_2samp

from benchmarks.tables import markdown

REPOSITORY = Path(__file__).resolve().parent.parent
RELEASED_RUNS = REPOSITORY / "tests" / "records" / "demo_released_seeds.json"
CORPUS = "7f1dd9a0538ef35066ac64418ae8a517c99d4f6c"  # the SHA-1 of the released runs' feature file
SCORES = {"MAE": 4, "Corr": 4, "epochs": 1}  # with the digits to print
LOWEST_P = 0.01


def train(seeds: list[int], jobs: int, folder: Path) -> pd.DataFrame:
    """Returns the seeds CSV of a run. Raises SystemExit if its corpus is not that of the released runs."""
    flags = ["--datasetName", "demo", "--seeds", *map(str, seeds), "--jobs", str(jobs), "--gpu_ids", "-1"]
    folders = ["--model_save_dir", str(folder / "models"), "--res_save_dir", str(folder / "results")]
    subprocess.run([sys.executable, str(REPOSITORY / "run.py"), *flags, *folders], cwd=folder, check=True)
    table = pd.read_csv(folder / "results" / "normals" / "demo-regression-seeds.csv")
    if set(table["features_sha1"]) != {CORPUS}:
        raise SystemExit(f"{RELEASED_RUNS.name} is of another demo corpus, with SHA-1 {CORPUS}")
    return table


def compare(ours: pd.DataFrame, released: pd.DataFrame) -> tuple[str, bool]:
    """Returns a table of both samples, and whether every p is at least LOWEST_P."""
    rows, lowest = [], 1.0
    for score, digits in SCORES.items():
        p = ks_2samp(ours[score], released[score]).pvalue
        lowest = min(lowest, p)
        cells = [f"{table[score].mean():.{digits}f} ± {table[score].std():.{digits}f}" for table in (released, ours)]
        rows.append([score, *cells, f"{p:.2f}"])
    return markdown(["", f"released, {len(released)} seeds", f"ours, {len(ours)} seeds", "p"], rows), lowest >= LOWEST_P


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distribution", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 21)), help="default: 1 to 20")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run in parallel; default 1")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        ours = train(args.seeds, args.jobs, Path(folder))
    table, same = compare(ours, pd.DataFrame(json.loads(RELEASED_RUNS.read_text())))
    verdict = "no difference between the distributions is seen" if same else "the distributions differ"
    print(f"\n{table}\n\nmean ± sample standard deviation; {verdict} (least p allowed: {LOWEST_P})")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
