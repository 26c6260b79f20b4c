"""Writes model.svg, the README's picture of Self-MM: python assets/make_model_figure.py"""

import math
import re
from pathlib import Path
from xml.sax.saxutils import escape

# task -> name, colour, tint, height of its row
TASKS = {
    "m": ("fusion", "#3b4656", "#e6e9ee", 124),
    "t": ("text", "#0068a8", "#dfedf7", 182),
    "a": ("audio", "#008a65", "#d9f1e9", 240),
    "v": ("vision", "#ad4c87", "#f7e3ee", 298),
}
HUMAN, HUMAN_TINT, INK, GREY, PANEL, WHITE = "#8f5600", "#ffd978", "#1f2733", "#566170", "#f5f7f9", "#ffffff"
DASHED = "5 4"
parts = []


def text(x, y, content, size=12, colour=INK, weight="normal", anchor="start"):
    """In the content, {...} is mathematics: italic letters, and _ or ^ before a character that goes down or up."""
    spans, shift = [], 0
    for prose, formula in re.findall(r"([^{}]+)|\{([^{}]+)\}", content):
        for token in [prose] if prose else re.findall(r"[_^].|tanh|[A-Za-zŷε]|[^_^A-Za-zŷε]+", formula):
            small = bool(formula) and token[0] in "_^"
            target = {"_": 0.24, "^": -0.4}[token[0]] * size if small else 0
            style = f' dy="{target - shift:.1f}"' if target != shift else ""
            style += f' font-size="{0.74 * size:.1f}"' if small else ""
            token, shift = token[small:], target
            style += ' font-style="italic"' if formula and len(token) == 1 and token.isalpha() else ""
            spans.append(f"<tspan{style}>{escape(token)}</tspan>")
    look = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    parts.append(f'<text x="{x}" y="{y}" {look}>{"".join(spans)}</text>')


def label(x, y, content, size=12, colour=INK, weight="normal"):
    text(x, y, content, size, colour, weight, "middle")


def box(x, y, width, height, fill=WHITE, stroke="#dfe4ea", radius=8, dash="none"):
    look = f'rx="{radius}" fill="{fill}" stroke="{stroke}" stroke-width="1.3" stroke-dasharray="{dash}"'
    parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {look}/>')


def card(x, y, width, fill, colour, first, second, size=13, ink=None):
    """A box with two lines, its middle at height y."""
    box(x, y - 21, width, 42, fill, colour)
    label(x + width / 2, y - 3, first, size, ink or colour, "normal" if ink else "bold")
    label(x + width / 2, y + 14, second, 11, GREY)


def dot(x, y, radius, fill, stroke="none", sign="", ink=WHITE):
    parts.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>')
    reach = 0.45 * radius
    for dx, dy in {"": [], "−": [(reach, 0)], "+": [(reach, 0), (0, reach)]}[sign]:
        line([(x - dx, y - dy), (x + dx, y + dy)], ink, 1.8)


def line(points, colour=INK, thick=1.7, dash="none"):
    route = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    look = f'fill="none" stroke="{colour}" stroke-width="{thick}" stroke-dasharray="{dash}" stroke-linejoin="round"'
    parts.append(f'<polyline points="{route}" {look} stroke-linecap="round"/>')


def arrow(*points, colour=GREY, dash="none"):
    (x0, y0), (x1, y1) = points[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    line([*points[:-1], (x1 - 6 * dx, y1 - 6 * dy)], colour, dash=dash)
    wings = [(x1 - 9 * dx + side * 4 * dy, y1 - 9 * dy - side * 4 * dx) for side in (1, -1)]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x1, y1), *wings])
    parts.append(f'<polygon points="{corners}" fill="{colour}"/>')


def fraction(x, y, above, below, width):
    label(x, y - 6, above, 14)
    label(x, y + 16, below, 14)
    line([(x - width / 2, y), (x + width / 2, y)], thick=1.2)


def network():
    box(20, 20, 738, 316, PANEL, radius=14)
    text(38, 50, "(a) Network", 16, weight="bold")
    text(38, 72, "three encoders, four heads", 12, GREY)
    captions = {"a clip": (83, 152), "encoders": (222, 152), "concatenate": (350, 96)}
    for caption, place in (captions | {"heads": (462, 82), "features": (573, 82), "scores": (714, 82)}).items():
        label(*place, caption, 12, GREY)
    box(537, 92, 72, 234, "none", GREY, 12, DASHED)
    for column, (task, (name, colour, tint, y)) in enumerate(TASKS.items()):
        x = 302 + 24 * column
        arrows = [(130, 156), (288, 412)] if task != "m" else [(392, 412)]
        for start, end in [*arrows, (512, 546), (600, 630), (672, 694), (734, 802)]:
            arrow((start, y), (end, y), colour=colour)
        if task != "m":
            box(36, y - 21, 94, 42, WHITE, colour)
            label(83, y + 5, name, 14, colour, "bold")
            encoder = ("BERT", "[CLS] of last layer") if task == "t" else ("LSTM + linear", "last frame’s state")
            card(156, y, 132, tint, colour, *encoder)
            line([(x, y - 8), (x, 155)], PANEL, 7)  # a gap in the arrows that the next one passes over
            arrow((x, y), (x, 142), colour=colour)
            dot(x, y, 3.6, colour)
            box(x - 12, 107, 24, 34, colour, PANEL, 5)
        card(412, y, 100, tint, colour, f"{name} head", "linear, ReLU")
        box(546, y - 16, 54, 32, colour, colour, 6)
        label(573, y + 4, f"{{F_{task}}}", 15, WHITE)
        box(630, y - 16, 42, 32, tint, colour, 6)
        label(651, y + 4, "MLP", 11, colour)
        dot(714, y, 20, WHITE, colour)
        label(714, y + 4, f"{{ŷ_{task}}}", 16, colour, "bold")


def loss():
    text(796, 50, "(c) Loss", 16, weight="bold")
    text(796, 77, "{|ŷ_m − y_m|}  +  Σ{_s W_s |ŷ_s − y_s|},   {s = t, a, v}", 14)
    text(1142, 97, "the only label given", 11.5, HUMAN, "bold", "end")
    box(1022, 155, 120, 170, "none", GREY, 12, DASHED)
    for task, (_, colour, tint, y) in TASKS.items():
        error, note = f"{{|ŷ_{task} − y_{task}|}}", "weight 1"
        ink, fill, origin, dash = HUMAN, HUMAN_TINT, "human", "none"
        if task != "m":
            error, note = f"{{W_{task} {error[1:]}", f"{{W_{task} = tanh |y_{task} − y_m|}}"
            ink, fill, origin, dash = colour, tint, "ULGM", DASHED
            label(886, y - 25, "+", 14)
        card(802, y, 168, WHITE, colour, error, note, 15, INK)
        arrow((1030, y), (971, y), colour=ink, dash=DASHED)
        box(1030, y - 18, 104, 36, fill, ink, 18, dash)
        label(1054, y + 4, f"{{y_{task}}}", 17, ink, "bold")
        text(1074, y + 4.5, origin, 12, ink)


def ulgm():
    box(20, 386, 1160, 232, PANEL, radius=14)
    text(38, 415, "(b) ULGM: unimodal label generation module", 16, weight="bold")
    steps = [(36, 206, "Class centres"), (266, 296, "Distances in feature space")]
    for x, width, title in [*steps, (586, 200, "Relative distance"), (810, 354, "New label")]:
        box(x, 430, width, 172)
        text(x + 14, 453, title, 13, weight="bold")
    for x in (266, 586, 810):
        arrow((x - 24, 516), (x, 516), dash=DASHED)
    for row, (task, (name, colour, *_)) in enumerate(TASKS.items()):
        text(50, 479 + 24 * row, name, 12, colour, "bold")
        for x, sign, fill, ink in ((118, "+", colour, WHITE), (182, "−", WHITE, colour)):
            dot(x, 475 + 24 * row, 8, fill, colour, sign, ink)
            text(x + 14, 480 + 24 * row, f"{{C_{task}^{sign}}}", 14, colour)
    text(50, 576, "mean features of the clips,", 11, GREY)
    text(50, 591, "by the sign of their {y_s} so far", 11, GREY)

    (_, colour, *_), faint = TASKS["t"], "#8dbbdc"
    for x, y in ((-36, -4), (-20, 18), (12, 24), (26, -20), (36, 8), (-26, -20)):
        dot(486 + x, 500 + y, 3, faint)
        dot(330 - x, 546 - y, 2.6, WHITE, faint)
    for x, y, sign, fill, ink in ((486, 500, "+", colour, WHITE), (330, 546, "−", WHITE, colour)):
        line([(430, 560), (x, y)], INK, 1.4)
        dot(x, y, 10, fill, colour, sign, ink)
        label(x, y - 17, f"{{C^{sign}}}", 15, colour)
    dot(430, 560, 7, colour, INK)
    text(442, 572, "a clip’s {F_t}", 13)
    text(466, 542, "{D^+}", 14)
    label(382, 545, "{D^−}", 14)
    text(280, 591, "shown for text; {D}: L2 norm", 11, GREY)

    text(657, 505, "{a_s} =", 15, anchor="end")
    fraction(708, 500, "{D^− − D^+}", "{D^+ + ε}", 86)
    text(600, 546, "{a_s > 0}: nearer to {C^+}")
    text(600, 567, "{a_s < 0}: nearer to {C^−}")
    text(600, 591, "{a_m}: the same of {F_m}", 11, GREY)

    text(872, 490, "{y′_s} =", 15, anchor="end")
    text(878, 490, "{½ (a_s / a_m) y_m + ½ (y_m + a_s − a_m)}", 14)
    text(824, 514, "mean of a ratio and a difference, kept in [−{H}, {H}]", 11, GREY)
    text(872, 556, "{y_s(i)} =", 15, anchor="end")
    fraction(898, 551, "{i − 1}", "{i + 1}", 40)
    label(966, 556, "{y_s(i − 1)}  +", 15)
    fraction(1034, 551, "2", "{i + 1}", 40)
    text(1060, 556, "{y′_s}", 15)
    text(824, 591, "momentum over epochs {i} = 2, 3, …;  {y_s(1) = y_m}", 11, GREY)


def links():
    arrow((38, 350), (78, 350), colour=INK)
    text(88, 354, "forward; gradients flow back")
    arrow((38, 371), (78, 371), colour=INK, dash=DASHED)
    text(88, 375, "labels and what makes them; no gradient")
    arrow((573, 326), (573, 386), dash=DASHED)
    text(585, 366, "features of all tasks", 12, GREY)
    arrow((1082, 430), (1082, 325), dash=DASHED)
    text(1070, 366, "unimodal labels {y_t , y_a , y_v}", 12, GREY, anchor="end")
    arrow((1134, 124), (1154, 124), (1154, 430), colour=HUMAN, dash=DASHED)
    text(1146, 366, "{y_m}", 14, HUMAN, "bold", "end")


def main():
    box(1, 1, 1198, 638, WHITE, "#d5dbe2", 18)
    box(778, 20, 402, 316, PANEL, radius=14)
    for draw in (network, loss, ulgm, links):
        draw()
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 640" font-family="Helvetica, Arial, sans-serif"'
    title = "Self-MM: three encoders, four heads, and labels for text, audio and vision made from the human label"
    svg = "\n".join([f'{head} role="img">', f"<title>{title}</title>", *parts, "</svg>", ""])
    Path(__file__).with_name("model.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
