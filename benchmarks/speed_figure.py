"""Draws assets/speed.svg, the speed figure of docs/speed.md, from a benchmark's results:

python -m benchmarks.throughput --json assets/speed.json
python -m benchmarks.speed_figure
"""

import json
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from benchmarks.tables import ratio

ASSETS = Path(__file__).resolve().parent.parent / "assets"
COLOURS = {"released way": "#8a94a3", "float32": "#0068a8", "bf16": "#008a65"}
INK, GREY = "#1f2733", "#566170"
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 170, 560, 17, 20, 62


def text(
    x: float, y: float, content: str, fill: str = INK, size: int = 13, anchor: str = "start", weight: str = "normal"
):
    look = f'x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {look}>{escape(content)}</text>"


def draw(result: dict) -> str:
    """An SVG with one bar per dataset and implementation; its length is the training speed in clips a second."""
    speeds = {
        dataset: {name: figures["clips"] / median(way["seconds"]) for name, way in figures["ways"].items()}
        for dataset, figures in result["datasets"].items()
    }
    fastest = max(max(ways.values()) for ways in speeds.values())
    machine = result["machine"]
    device = machine["gpu"] or f"{machine['threads']} threads on an {machine['cpu']}"
    parts = [
        text(20, 26, "Training speed: clips a second", size=16, weight="bold"),
        text(20, 46, f"BERT-base, windows of 128 clips, {device}, PyTorch {machine['torch']}", GREY, 12),
    ]
    y = TOP
    for dataset, ways in speeds.items():
        parts.append(text(20, y + 1.5 * BAR + 5, dataset.upper(), weight="bold"))
        for name, speed in ways.items():
            length = (RIGHT - LEFT) * speed / fastest
            measured = result["datasets"][dataset]["ways"]
            times = ratio(measured["released way"]["seconds"], measured[name]["seconds"])
            times = "" if name == "released way" else f", {times:.1f} times as fast"
            parts += [
                text(LEFT - 8, y + BAR - 4, name, GREY, 12, "end"),
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}" rx="2" fill="{COLOURS[name]}"/>',
                text(LEFT + length + 7, y + BAR - 4, f"{speed:.1f}{times}", INK, 12),
            ]
            y += BAR
        y += GAP
    style = "font-family=\"-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif\""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" {style} role="img" '
        f'aria-label="Training speed in clips a second">\n<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    result = json.loads((ASSETS / "speed.json").read_text(encoding="utf-8"))
    (ASSETS / "speed.svg").write_text(draw(result), encoding="utf-8")
