"""Figures of a run. Every number in them is in its CSVs or in SEED-labels.npz. Imports matplotlib, but not pyplot."""

import io
import re
from pathlib import Path

import numpy as np
from matplotlib import colors, rc_context
from matplotlib.figure import Figure

from trains.runs.figures.run_data import RunData
from utils.metrics import CLASS_COUNTS, SIMS_EDGES, classes_of

# INK stands for the page's text colour in an SVG. The others are Okabe and Ito's, which colour-blind readers tell apart.
INK, BLUE, VERMILLION, GREEN = COLOURS = "#010203", "#0072B2", "#D55E00", "#009E73"
SHARES = colors.LinearSegmentedColormap.from_list("shares", [BLUE + "00", BLUE])  # from transparent: for any background
STYLE = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK)
STYLE |= {"font.size": 9, "axes.titlesize": 9, "legend.frameon": False, "svg.hashsalt": "self"}
STYLE |= dict.fromkeys(["svg.fonttype", "text.hinting"], "none")
CURVES = {"train_loss": "training loss", "valid_Loss": "validation loss (label units)", "valid_Corr": "validation Corr"}
MEASURES = {"MAE": "MAE (label units)\nlow is good", "Corr": "Corr\nhigh is good", "sign": "same sign\nhigh is good"}


@rc_context(STYLE)
def figures(run: RunData) -> dict[str, Figure]:
    """Name -> figure, of those that the run has data for."""
    judged = [task for task in run.tasks[1:] if f"{task}_label_MAE" in run.histories[run.seed]]
    generates = run.labels and run.tasks[1:] and run.facts["hyper_parameters"]["unimodal_labels"] == "generated"
    labels = {"labels": _labels(run, run.tasks[1:])} if generates else {}
    quality = {"label_quality": _label_quality(run, judged)} if judged else {}
    return {"curves": _curves(run), **labels, **quality, "predictions": _predictions(run), "confusion": _confusion(run)}


@rc_context(STYLE)
def to_png(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=100, facecolor="white", pil_kwargs={"compress_level": 1})


@rc_context(STYLE)
def to_svg(figure: Figure) -> str:
    """An <svg> element that takes the text colour of its HTML page."""
    figure.savefig(file := io.StringIO(), format="svg", dpi=120, transparent=True)
    # In a page of several figures, names of groups would repeat, and a style sheet would apply to all of the page.
    svg = re.sub(r'(?s)^.*<svg |<metadata>.*?</metadata>|<style.*?</style>|(?<=<g) id="[\w.]+"', "", file.getvalue())
    start = f'<svg role="img" aria-label="{figure.get_label()}" stroke-linejoin="round" '
    return start + svg.replace(INK, "currentColor")


def _grid(alt: str, shape: tuple[int, int], height: float, share: str = "none", **grid) -> tuple[Figure, np.ndarray]:
    """A figure, 9 x height inches, and its axes. alt: the text instead of the picture. grid: of GridSpec."""
    figure, grid = Figure((9, height), label=alt), {"left": 0.08, "right": 0.985, "hspace": 0.3, "wspace": 0.3} | grid
    panels = figure.subplots(*shape, sharex=share, sharey=share, squeeze=False, gridspec_kw=grid)
    for axes in panels.flat:
        axes.locator_params(nbins=5, integer=True)  # at whole numbers, if an axis has two
    return figure, panels


def _curves(run: RunData) -> Figure:
    height = 3.75 + 0.08 * len(run.histories)  # the legend grows
    figure, (plots,) = _grid("Losses by epoch", (1, 3), height, bottom=1 - 2.85 / height, top=0.97)
    for axes, (column, name) in zip(plots, CURVES.items(), strict=True):
        for place, (seed, history) in enumerate(run.histories.items()):
            best, look = int(run.rows["best_epoch"][seed]), "osDv^P*X<>"[place % 10] + ("-", "--", ":")[place % 3]
            label = f"seed {seed}: {history['valid_Loss'][best]:.4f} at epoch {best}"
            axes.plot(history[column], look, color=COLOURS[place % 4], markevery=history.index == best, label=label)
        axes.set(xlabel="epoch", ylabel=name, xlim=(0, None))
    figure.legend(handles=plots[0].lines, loc="lower center", ncols=3, title="Validation loss at the marked best epoch")
    return figure


def _labels(run: RunData, tasks: list[str]) -> Figure:
    epochs, best, clips = run.labels["epoch"], int(run.rows["best_epoch"][run.seed]), len(run.labels["fusion"])
    paper = {1, 5, 10, 15} if run.dataset.name == "mosei" else {1, 10, 20, 30}  # those of Figure 3
    shown = sorted({best, epochs[-1], *paper} & set(epochs))
    figure, (upper, lower) = _grid("Generated labels", (2, len(tasks)), 6.2, "row", right=0.89, bottom=0.08, top=0.9)
    # 31 bins: most datasets' labels are multiples of 0.2, which so fall into the middle of a bin.
    edges = np.linspace(-31, 31, 32) / 30 * max(run.dataset.label_bound, *(abs(run.labels[t]).max() for t in tasks))
    shares = np.full((len(tasks), len(edges) - 1, epochs[-1]), np.nan)  # nan: a resumed run may lack some epochs
    for share, task in zip(shares, tasks, strict=True):
        share[:, epochs - 1] = 100 / clips * np.array([np.histogram(row, edges)[0] for row in run.labels[task]]).T
    norm = colors.PowerNorm(0.5, 0, np.nanmax(shares))  # shows small shares, too
    for bars, axes, task, share in zip(upper, lower, tasks, shares, strict=True):
        negative, places = (run.labels[task][np.isin(epochs, shown)] < 0).sum(axis=1), np.arange(len(shown))
        bars.bar_label(bars.barh(places - 0.2, negative, 0.34, fc="none", ec=VERMILLION, hatch="////"), padding=2)
        bars.bar_label(bars.barh(places + 0.2, clips - negative, 0.34, color=BLUE), padding=2)
        bars.set(title=f"{task} (seed {run.seed})", xlabel="clips", ylim=(len(shown) - 0.4, -0.6), xmargin=0.25)
        bars.set_yticks(places, [f"{'best' if epoch == best else 'epoch'} {epoch}" for epoch in shown])
        mesh = axes.pcolormesh(np.arange(epochs[-1] + 1) + 0.5, edges, share, cmap=SHARES, norm=norm, rasterized=True)
        axes.axvline(best, color=VERMILLION, linestyle=":")
        axes.set(xlabel="epoch (dotted: best)", ylabel="generated label", xlim=(0, None))
    figure.legend(upper[0].containers, ["negative", "positive or 0"], loc="upper center", ncols=2)
    figure.colorbar(mesh, figure.add_axes((0.91, 0.08, 0.014, 0.357)), label="% of clips").solids.set_rasterized(True)
    return figure


def _label_quality(run: RunData, tasks: list[str]) -> Figure:
    figure, grid = _grid("Quality of labels by epoch", (3, len(tasks)), 7, "row", left=0.1, bottom=0.14, top=0.96)
    shown, look = run.histories[run.seed], {"linewidth": 1.8, "markevery": [-1]}
    for panels, (measure, name) in zip(grid, MEASURES.items(), strict=True):
        for axes, task in zip(panels, tasks, strict=True):
            for history in run.histories.values():
                axes.plot(history[f"{task}_label_{measure}"], color=BLUE, linewidth=0.8)
            axes.plot(shown[f"{task}_label_{measure}"], "o-", color=BLUE, label=f"generated, seed {run.seed}", **look)
            axes.plot(shown[f"{task}_copied_{measure}"], "s--", color=INK, label="copied fusion label", **look)
            axes.plot(shown[f"{task}_shuffled_{measure}"], "^:", color=VERMILLION, label="offsets shuffled", **look)
            axes.set(xlabel="epoch", ylabel=name, title=task if measure == "MAE" else "", xlim=(0, None))
            axes.label_outer()
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, title="Thin: generated, other seeds")
    return figure


def _predictions(run: RunData) -> Figure:
    clips = run.clips[run.clips["split"] == "test"].dropna(axis="columns", how="all")
    tasks = ["fusion", *(task for task in run.tasks if f"{task}_human" in clips)]
    rows = 2 if len(tasks) == 4 else 1
    figure, grid = _grid("Scores", (rows, len(tasks) // rows), 4.2 * rows, bottom=0.12 / rows, top=1 - 0.11 / rows)
    limit = 1.05 * max(run.dataset.label_bound, *clips.filter(regex="score$").abs().max())
    for axes, task in zip(grid.flat, tasks, strict=True):
        prefix, truth = ("", "label") if task == "fusion" else (f"{task}_", f"{task}_human")
        axes.plot([-limit, limit], [-limit, limit], color=INK, linewidth=0.8)
        axes.scatter(clips[truth], clips[f"{prefix}score"], 10, BLUE + "60", ec=BLUE, lw=0.7, rasterized=True)
        axes.set(xlabel="human label", ylabel="score", aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
        mae, corr = run.rows.loc[run.seed, [f"{prefix}MAE", f"{prefix}Corr"]]
        axes.set_title(f"{task} (seed {run.seed})\nMAE {mae:.4f}, Corr {corr:.4f}")
    return figure


def _confusion(run: RunData) -> Figure:
    clips, bound, metrics = run.clips[run.clips["split"] == "test"], run.dataset.label_bound, run.dataset.metrics
    values = [np.clip(np.float32(clips[name]), -bound, bound) for name in ("label", "score")]
    figure, (panels,) = _grid("Confusion tables", (1, 3), 3.8, width_ratios=(2, 3, 4), wspace=0.2)
    for axes, count in zip(panels, CLASS_COUNTS[metrics], strict=True):
        table = np.histogram2d(*(classes_of(value, metrics, count) for value in values), bins=range(count + 1))[0]
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1.15, ec=BLUE + "60", lw=0.5)  # 1.15: ink stays legible
        for (truth, guess), number in np.ndenumerate(table):
            axes.text(guess + 0.5, truth + 0.5, f"{number:.0f}" if number else "", ha="center", va="center")
        ticks, edges = range(1, count), np.arange(1, count) - count / 2 if metrics == "mosi" else SIMS_EDGES[count]
        axes.set(xticks=ticks, yticks=ticks, xticklabels=edges, yticklabels=edges, aspect="equal", ylim=(count, 0))
        name = f"{'Has0' if metrics == 'mosi' and count == 2 else 'Mult'}_acc_{count}"
        title = f"{count} classes (seed {run.seed})\n{name} {100 * run.rows[name][run.seed]:.2f} %"
        axes.set(xlabel="score", title=title)
    panels[0].set_ylabel("human label (shade: share of row)")
    return figure
