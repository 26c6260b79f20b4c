"""Draws a run's figures and report: python -m trains.runs.figures results/results/self_mm-mosi-regression"""

from pathlib import Path

from utils.errors import Parser, run_program
from utils.files import remove, replacing


def draw_run(folder: Path, seed: int | None = None) -> str:
    """Writes report.html and its figures as PNG files. seed: see read_run_data. Returns what to print. Raises UserError."""
    from trains.runs.figures.draw import figures, to_png, to_svg  # --help does not wait for them
    from trains.runs.figures.page import make_page
    from trains.runs.figures.quality import quality_table
    from trains.runs.figures.run_data import read_run_data

    run = read_run_data(folder, seed)
    drawn, quality = figures(run), quality_table(run)
    for name in {"labels", "label_quality"} - drawn.keys():
        remove(folder / f"{name}.png")  # of an earlier training
    for name, figure in drawn.items():
        with replacing(folder / f"{name}.png") as work:
            to_png(figure, work)
    with replacing(folder / "report.html") as work:
        work.write_text(make_page(run, {name: to_svg(figure) for name, figure in drawn.items()}), encoding="utf-8")
    title = "training labels against human ones of each modality: the mean over seeds, each at its best epoch\n"
    return f"{title}{quality.to_string(index=False)}\n" * (len(quality) > 0) + f"report: {folder / 'report.html'}"


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m trains.runs.figures", description="Draws a run's figures and its report.html.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, below results/results")
    parser.add_argument("--seed", type=int, help="the seed to show clip by clip; default: the first that is finished")
    return run_program(lambda: print(draw_run(**vars(parser.parse_args(argv)))))


if __name__ == "__main__":
    raise SystemExit(main())
