"""Figures as Markdown, for a terminal and for the README."""

from statistics import median

GIB = 2**30


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast, by the median over pairs that were timed one after the other."""
    return median(one / other for one, other in zip(slow, fast, strict=True))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_table(name: str, result: dict) -> str:
    """One dataset's figures: a column for each way."""
    ways = result["ways"]
    baseline, *_ = ways.values()
    clips, agreement = result["clips"], result["agreement"]

    def row(what: str, cell) -> list[str]:
        return [what, *(cell(way) for way in ways.values())]

    rows = [
        row("seconds for a window", lambda way: f"{median(way['seconds']):.2f}"),
        row("clips a second", lambda way: f"{clips / median(way['seconds']):.1f}"),
        row("**times as fast**", lambda way: f"**{ratio(baseline['seconds'], way['seconds']):.1f}**"),
        row("share of the machine's limit", lambda way: f"{median(way['share: fastest']):.0%}"),
        row("... which multiplies at GFLOP/s", lambda way: f"{median(way['rate: fastest']) / 1e9:.0f}"),
        row("share of the limit by torch.mm", lambda way: f"{median(way['share: torch.mm']):.0%}"),
        row("... which multiplies at GFLOP/s", lambda way: f"{median(way['rate: torch.mm']) / 1e9:.0f}"),
        row("memory for a step, GiB", lambda way: "?" if way["memory"] is None else f"{way['memory'] / GIB:.1f}"),
    ]
    for part in (key for key in baseline if key.startswith("part: ")):
        rows.append(row(f"s, {part.removeprefix('part: ')}", lambda way, part=part: f"{median(way[part]):.3f}"))
    evaluated = result["evaluated_clips"]
    rows += [
        row("evaluation, clips a second", lambda way: f"{evaluated / median(way['evaluation_seconds']):.1f}"),
        row(
            "**times as fast**",
            lambda way: f"**{ratio(baseline['evaluation_seconds'], way['evaluation_seconds']):.1f}**",
        ),
    ]
    real, padded = median(result["tokens"]), result["padded_tokens"]
    return (
        f"\n{name.upper()}: windows of {clips} clips, {real:.0f} of {padded} tokens real; the median of "
        f"{len(baseline['seconds'])}. Without dropout, the first two columns differ by at most {agreement['scores']:.0e} in "
        f"scores, {agreement['loss']:.0e} in loss, {agreement['labels']:.0e} in labels (mean).\n\n"
        + markdown(["", *ways], rows)
    )
