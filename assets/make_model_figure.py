"""Writes model.svg, the README's picture of Self-MM: python assets/make_model_figure.py"""

import re
from functools import partial
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


def shape(kind, inside="", **look):
    attributes = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in look.items())
    parts.append(f"<{kind} {attributes}>{inside}</{kind}>")


def text(x, y, content, size=13, fill=INK, weight="normal", anchor="start"):
    """In the content, {...} is mathematics: italic letters, and _ or ^ before a character that goes down or up."""
    spans, height = "", 0
    for prose, formula in re.findall(r"([^{}]+)|\{([^{}]+)\}", content):
        for token in [prose] if prose else re.findall(r"[_^].|tanh|[A-Za-zŷε]|[^_^A-Za-zŷε]+", formula):
            shift = {"_": 0.24, "^": -0.4}.get(token[0], 0) * size
            token = token[1:] if shift else token
            style = "italic" if formula and len(token) == 1 and token.isalpha() else "normal"
            look = f'dy="{shift - height:.1f}" font-size="{0.74 * size if shift else size:.1f}" font-style="{style}"'
            spans, height = f"{spans}<tspan {look}>{escape(token)}</tspan>", shift
    shape("text", spans, x=x, y=y, fill=fill, font_size=size, font_weight=weight, text_anchor=anchor)


def box(x, y, width, height, fill=WHITE, stroke="#dfe4ea", rx=8, dash="none"):
    shape("rect", x=x, y=y, width=width, height=height, rx=rx, fill=fill, stroke=stroke, stroke_dasharray=dash)


def card(x, y, width, height, fill, stroke, first, size=13, ink=None, second="", rx=8):
    """A box with one or two lines, its middle at height y."""
    box(x, y - height / 2, width, height, fill, stroke, rx)
    label(x + width / 2, y - 3 if second else y + 4, first, size, ink or stroke, "normal" if ink else "bold")
    label(x + width / 2, y + 14, second, 12, GREY)


def line(*points, colour=INK, width=1.7, dash="none", head="none"):
    look = {"stroke": colour, "stroke_width": width, "stroke_dasharray": dash, "marker_end": head}
    shape("path", d="M" + " L".join(f"{x:g} {y:g}" for x, y in points), fill="none", stroke_linejoin="round", **look)


def arrow(*points, colour=GREY, dash="none"):
    line(*points, colour=colour, dash=dash, head=f"url(#head-{colour[1:]})")


def dot(x, y, radius, fill, stroke="none", sign=""):
    shape("circle", cx=x, cy=y, r=radius, fill=fill, stroke=stroke)
    arm, ink = 0.45 * radius, WHITE if sign == "+" else stroke
    for dx, dy in {"": [], "−": [(arm, 0)], "+": [(arm, 0), (0, arm)]}[sign]:
        line((x - dx, y - dy), (x + dx, y + dy), colour=ink)


label = partial(text, anchor="middle")
for colour in (HUMAN, INK, GREY, *(colour for _, colour, *_ in TASKS.values())):
    look = {"markerWidth": 9, "markerHeight": 8, "refX": 9, "refY": 4, "markerUnits": "userSpaceOnUse"}
    shape("marker", f'<path d="M0 0L9 4L0 8z" fill="{colour}"/>', id=f"head-{colour[1:]}", orient="auto", **look)
box(1, 1, 1198, 638, WHITE, rx=18)
panels = {"(a) Network": (20, 20, 738, 316), "(c) Loss": (778, 20, 402, 316)}
for title, panel in (panels | {"(b) ULGM: unimodal label generation module": (20, 386, 1160, 232)}).items():
    box(*panel, PANEL, rx=14)
    text(panel[0] + 18, panel[1] + 30, title, 17, weight="bold")

# (a) and (c): a row for each task
text(38, 72, "three encoders, four heads", fill=GREY)
captions = {"a clip": (83, 152), "encoders": (222, 152), "concatenate": (350, 96), "heads": (462, 82)}
for caption, place in (captions | {"features": (573, 82), "scores": (714, 82)}).items():
    label(*place, caption, fill=GREY)
text(796, 77, "{|ŷ_m − y_m|}  +  Σ{_s W_s |ŷ_s − y_s|},   {s = t, a, v}", 14)
text(1142, 97, "the only label given", 13, HUMAN, "bold", "end")
for place in ((537, 92, 72, 234), (1022, 155, 120, 170)):
    box(*place, "none", GREY, 12, DASHED)
for column, (task, (name, colour, tint, y)) in enumerate(TASKS.items()):
    x, inputs = 302 + 24 * column, [(130, 156), (288, 412)] if task != "m" else [(391, 412)]
    for start, end in [*inputs, (512, 546), (600, 630), (672, 694), (734, 802)]:
        arrow((start, y), (end, y), colour=colour)
    error, note, origin, ink, fill, dash = f"|ŷ_{task} − y_{task}|", "weight 1", "human", HUMAN, HUMAN_TINT, "none"
    if task != "m":
        card(36, y, 94, 42, WHITE, colour, name, 14)
        kind, output = ("BERT", "[CLS] of last layer") if task == "t" else ("LSTM + linear", "last frame’s state")
        card(156, y, 132, 42, tint, colour, kind, second=output)
        line((x, y - 8), (x, 155), colour=PANEL, width=7)  # a gap in the arrows that the next one passes over
        arrow((x, y), (x, 143), colour=colour)
        dot(x, y, 4, colour)
        box(x - 12, 107, 24, 34, colour, PANEL, 5)
        error, note = f"W_{task} {error}", f"{{W_{task} = tanh |y_{task} − y_m|}}"
        origin, ink, fill, dash = "ULGM", colour, tint, DASHED
        label(886, y - 25, "+", 14)
    card(412, y, 100, 42, tint, colour, f"{name} head", second="linear, ReLU")
    card(546, y, 54, 32, colour, colour, f"{{F_{task}}}", 15, WHITE)
    card(630, y, 42, 32, tint, colour, "MLP", 12, colour)
    card(694, y, 40, 40, WHITE, colour, f"{{ŷ_{task}}}", 16, rx=20)
    card(802, y, 168, 42, WHITE, colour, f"{{{error}}}", 15, INK, note)
    arrow((1030, y), (971, y), colour=ink, dash=DASHED)
    box(1030, y - 18, 104, 36, fill, ink, 18, dash)
    label(1054, y + 4, f"{{y_{task}}}", 17, ink, "bold")
    text(1074, y + 4.5, origin, 13, ink)

# (b): four steps
steps = {"Class centres": (36, 206), "Distances in feature space": (266, 296), "Relative distance": (586, 200)}
for title, (x, width) in (steps | {"New label": (810, 354)}).items():
    box(x, 430, width, 172)
    text(x + 14, 453, title, 14, weight="bold")
for x in (266, 586, 810):
    arrow((x - 24, 516), (x, 516), dash=DASHED)
for row, (task, (name, colour, *_)) in enumerate(TASKS.items()):
    text(50, 479 + 24 * row, name, 13, colour, "bold")
    for x, sign in ((118, "+"), (182, "−")):
        dot(x, 475 + 24 * row, 8, colour if sign == "+" else WHITE, colour, sign)
        text(x + 14, 480 + 24 * row, f"{{C_{task}^{sign}}}", 14, colour)
colour, faint = TASKS["t"][1], "#8dbbdc"
for x, y in ((-40, -7), (-25, 20), (14, 24), (27, -20), (36, 6), (-28, -24)):
    dot(486 + x, 500 + y, 3, faint)
    dot(330 - x, 546 + y, 2.6, WHITE, faint)
for x, y, sign in ((486, 500, "+"), (330, 546, "−")):
    line((430, 560), (x, y), width=1.4)
    dot(x, y, 10, colour if sign == "+" else WHITE, colour, sign)
    label(x, y - 17, f"{{C^{sign}}}", 15, colour)
dot(430, 560, 7, colour, INK)
label(965, 556, "{y_s(i − 1)}  +", 15)
fractions = [(708, 500, "{D^− − D^+}", "{D^+ + ε}", 43), (898, 551, "{i − 1}", "{i + 1}", 20)]
for x, y, above, below, half in [*fractions, (1034, 551, "2", "{i + 1}", 20)]:
    label(x, y - 6, above, 14)
    label(x, y + 16, below, 14)
    line((x - half, y), (x + half, y), width=1.2)
# fmt: off
formulas = [(657, 505, "{a_s} ="), (872, 490, "{y′_s} ="), (872, 556, "{y_s(i)} ="),
            (1080, 556, "{y′_s}"), (488, 545, "{D^+}"), (404, 546, "{D^−}")]
remarks = [(600, 546, "{a_s > 0}: nearer to {C^+}"), (600, 567, "{a_s < 0}: nearer to {C^−}"),
           (442, 572, "a clip’s {F_t}"), (878, 490, "{½ (a_s / a_m) y_m + ½ (y_m + a_s − a_m)}")]
notes = [(50, 576, "mean features of the clips,"), (50, 591, "by the sign of their {y_s} so far"),
         (280, 591, "shown for text; {D}: L2 norm"), (600, 591, "{a_m}: likewise, from {F_m}"),
         (824, 514, "mean of a ratio and a difference, kept in [−{H}, {H}]"),
         (824, 591, "momentum over epochs {i} = 2, 3, …;  {y_s(1) = y_m}")]
# fmt: on
for items, look in ((formulas, (15, INK, "normal", "end")), (remarks, ()), (notes, (12, GREY))):
    for item in items:
        text(*item, *look)

# between the panels
legend = [(350, "none", "forward; gradients flow back"), (371, DASHED, "labels and what makes them; no gradient")]
for y, dash, meaning in legend:
    arrow((38, y), (78, y), colour=INK, dash=dash)
    text(88, y + 4, meaning)
arrow((573, 326), (573, 386), dash=DASHED)
text(585, 366, "features of all tasks", fill=GREY)
arrow((1082, 430), (1082, 325), dash=DASHED)
text(1070, 366, "unimodal labels {y_t , y_a , y_v}", fill=GREY, anchor="end")
arrow((1134, 124), (1154, 124), (1154, 430), colour=HUMAN, dash=DASHED)
text(1146, 366, "{y_m}", 14, HUMAN, "bold", "end")

head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 640" font-family="Helvetica, Arial, sans-serif"'
title = "Self-MM: three encoders, four heads, and labels for text, audio and vision made from the human label"
svg = "\n".join([f'{head} stroke-width="1.4" role="img">', f"<title>{title}</title>", *parts, "</svg>", ""])
Path(__file__).with_name("model.svg").write_text(svg, encoding="utf-8")
