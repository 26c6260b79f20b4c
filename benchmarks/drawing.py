"""Measures how long a run's figures and report take, and which share of the run's training time that is.

python -m benchmarks.drawing results/results/self_mm-demo-regression
"""

import argparse
import sys
import time
from pathlib import Path

import sklearn.metrics  # noqa: F401  a run has imported it, and pandas, by the time that it draws

from benchmarks.tables import markdown


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the run's folder, below results/results")
    folder = parser.parse_args(argv).run
    seconds, start = {}, time.perf_counter()

    def measured(part: str, value: object) -> object:
        nonlocal start
        seconds[part] = time.perf_counter() - start
        start = time.perf_counter()
        return value

    from trains.runs.figures.draw import figures, to_png, to_svg
    from trains.runs.figures.page import make_page
    from trains.runs.figures.run_data import read_run_data

    run = measured("imports and reading", read_run_data(folder))
    drawn = measured("figures", figures(run))
    measured("PNG files", [to_png(figure, folder / f"{name}.png") for name, figure in drawn.items()])
    vectors = measured("SVGs", {name: to_svg(figure) for name, figure in drawn.items()})
    measured("report.html", make_page(run, vectors))
    total, training = sum(seconds.values()), run.rows["seconds"].sum()
    print(markdown(["part", "seconds"], [[part, f"{value:.2f}"] for part, value in seconds.items()]))
    print(
        f"{total:.2f} s, {100 * total / training:.1f}% of the {training:.0f} s in which the seeds trained: {len(run.rows)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
