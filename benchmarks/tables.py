"""Formats figures as Markdown tables, which read well in a terminal too."""

from collections.abc import Callable
from statistics import median

from benchmarks.corpora import SHAPES

GIB = 2**30
RELEASED = "released way"  # the baseline's name in tables, figures and JSON


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median ratio of pairs of times, each pair measured in one turn."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.1f}"


def evaluation_share(result: dict, figures: dict) -> float:
    """The time of an evaluation's matrix products at the fastest rate, as a share of its time."""
    return result["evaluation_flops"] / median(figures["rate: fastest"]) / median(figures["evaluation_seconds"])


def as_table(name: str, result: dict) -> str:
    """One dataset's figures, with a column for each implementation, the baseline first."""
    columns = result["ways"]
    baseline = next(iter(columns.values()))
    clips, evaluated, agreement = result["clips"], result["evaluated_clips"], result["agreement"]

    def row(title: str, cell: Callable[[dict], str]) -> list[str]:
        return [title, *map(cell, columns.values())]

    def epoch(figures: dict) -> str:
        """Of the dataset's real size: its windows, and its validation split."""
        train = SHAPES[name].clips["train"] / clips * median(figures["seconds"])
        return f"{train + SHAPES[name].clips['valid'] / evaluated * median(figures['evaluation_seconds']):.0f}"

    def times_as_fast(key: str) -> list[str]:
        return row("**times as fast**", lambda figures: f"**{ratio(baseline[key], figures[key]):.1f}**")

    rows = [
        row("seconds for a window", lambda figures: f"{median(figures['seconds']):.2f}"),
        row("clips a second", lambda figures: f"{clips / median(figures['seconds']):.1f}"),
        times_as_fast("seconds"),
        row("share of the machine's limit", lambda figures: f"{median(figures['share: fastest']):.0%}"),
        row("... which multiplies at GFLOP/s", lambda figures: f"{median(figures['rate: fastest']) / 1e9:.0f}"),
        row("share of the limit by torch.mm", lambda figures: f"{median(figures['share: torch.mm']):.0%}"),
        row("... which multiplies at GFLOP/s", lambda figures: f"{median(figures['rate: torch.mm']) / 1e9:.0f}"),
        row("memory for a step, GiB", lambda figures: _gib(figures["memory"])),
    ]
    for key in (key for key in baseline if key.startswith("part: ")):
        rows.append(row(f"s, {key.removeprefix('part: ')}", lambda figures, key=key: f"{median(figures[key]):.3f}"))
    rows += [
        row("evaluation, clips a second", lambda figures: f"{evaluated / median(figures['evaluation_seconds']):.1f}"),
        times_as_fast("evaluation_seconds"),
        row("share of the machine's limit in evaluation", lambda figures: f"{evaluation_share(result, figures):.0%}"),
        row("seconds for an epoch with validation", epoch),
    ]
    real, padded = median(result["tokens"]), result["padded_tokens"]
    return (
        f"\n{name.upper()}: windows of {clips} clips, {real:.0f} of {padded} tokens real; medians of "
        f"{len(baseline['seconds'])} turns. Without dropout, the first two columns differ by at most "
        f"{agreement['scores']:.0e} in scores, {agreement['loss']:.0e} in loss and, on average, {agreement['labels']:.0e} in labels.\n\n"
        + markdown(["", *columns], rows)
    )
