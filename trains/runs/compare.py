"""Compares two lines of a run's summary, seed by seed: python -m trains.runs.compare released MT"""

from pathlib import Path

import numpy as np
import pandas as pd

from config.config_regression import DATASETS
from trains.runs.report import as_printed, scale_of
from trains.runs.results import RUN, read_rows
from utils.errors import Parser, UserError, first_line, printable, run_program


def compare(first: str, second: str, dataset: str, results: Path) -> str:
    """Means and paired differences of two lines. Raises UserError unless they have two seeds in common."""
    from scipy import stats  # slow to import, like scikit-learn, and --help needs neither

    from utils.metrics import METRICS, lower_is_better, metric_names

    names, seeds_csv = [first, second], results / "normals" / f"{dataset}-regression-seeds.csv"
    rows = read_rows(seeds_csv, RUN).drop_duplicates(RUN, keep="last")
    lines = [_line(rows, name, seeds_csv) for name in names]
    if lines[0].equals(lines[1]):
        raise UserError(f"{' and '.join(names)} are the same line of {seeds_csv}; name two")
    if len(seeds := sorted(set(lines[0].index) & set(lines[1].index))) < 2:
        problem = f"{' and '.join(names)} need two seeds in common, and have {' '.join(seeds) or 'none'}"
        raise UserError(f"{problem}; train both with the same --seeds")
    metrics = metric_names(METRICS[DATASETS[dataset].metrics])
    try:
        a, b = (line.loc[seeds, metrics].replace("", "nan").astype(float) * scale_of(metrics) for line in lines)
    except (KeyError, ValueError) as error:
        raise UserError(f"{seeds_csv}: damaged row ({first_line(error)}); repair the file, or move it away") from None
    change = (b - a).mean(skipna=False)
    margin = stats.t.ppf(0.975, len(seeds) - 1) * (b - a).sem(skipna=False)
    columns = {"A": a.mean(skipna=False), "B": b.mean(skipna=False), "B - A": change}
    table = as_printed(pd.DataFrame(columns | {"from": change - margin, "to": change + margin}))
    # The share of all choices of the differences' signs whose mean is as far from 0; from 15 seeds on, of random choices.
    flips = stats.permutation_test((b - a,), np.mean, permutation_type="samples", n_resamples=2**14, rng=0)
    table["p"] = np.where(change.isna(), "-", [f"{p:.4f}" for p in flips.pvalue])
    gain = change * [-1 if lower_is_better(metric) else 1 for metric in metrics]
    table["better"] = np.select([gain > 0, gain < 0], ["B", "A"], "")
    report = [f"{letter}: {line['name'].iloc[-1]}" for letter, line in zip("AB", lines, strict=True)]
    report.append(f"{len(seeds)} seeds: {' '.join(seeds)}")
    if others := sorted(set(lines[0].index) ^ set(lines[1].index)):
        report.append(f"left out, since only A or only B has them: {' '.join(others)}")
    report += [*table.to_string(index=False).splitlines(), "from, to: the 95% confidence interval of B - A"]
    report.append(f"p: by flipping signs; {len(seeds)} seeds give {2 / 2 ** len(seeds):.4f} at least")
    return "\n".join(map(printable, report))


def _line(rows: pd.DataFrame, name: str, seeds_csv: Path) -> pd.DataFrame:
    """The rows of a line, by seed. name: its settings, or how its config_hash begins. Raises UserError."""
    hashes, settings = rows["config_hash"], rows.get("settings", rows["config_hash"])
    rows = rows.assign(name=(settings + " (" + hashes + ")").str.strip())
    named = settings == name
    found = rows[named if named.any() else hashes.str.startswith(name)]
    if found["config_hash"].nunique() != 1:
        listed = ", ".join((rows if found.empty else found)["name"].unique()) or "none; run.py writes them"
        raise UserError(f"{name}: names {'no line' if found.empty else 'several lines'} of {seeds_csv}: {listed}")
    return rows[hashes == found["config_hash"].iloc[0]].set_index("seed")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m trains.runs.compare", description="Compares two lines of a summary, seed by seed.")
    add = parser.add_argument
    add("first", metavar="A", help="a line's settings in the summary, such as released, or how its config_hash begins")
    add("second", metavar="B", help="another line, such as MT")
    add("--datasetName", dest="dataset", type=str.lower, choices=list(DATASETS), default="mosi", help="default mosi")
    add("--res_save_dir", dest="results", type=Path, metavar="DIR", default="results/results", help="as in run.py")
    return run_program(lambda: print(compare(**vars(parser.parse_args(argv)))))


if __name__ == "__main__":
    raise SystemExit(main())
