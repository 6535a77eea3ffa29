"""Curves with two logarithmic axes, drawn without a plotting library."""

from itertools import pairwise
from math import ceil, floor, log10

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 1100, 640, 70, 20, 300, 60


def curves(lines: dict[str, list[list[tuple[float, float]]]], x: str, y: str) -> Tensor:
    """A picture (3, H, W), uint8: a colour a name, a line for each of its lists of points (positive x, positive y)."""
    points = [(a, max(b, 1e-3)) for runs in lines.values() for run in runs for a, b in run]
    ends = [(floor(log10(min(axis)) * 4) / 4, ceil(log10(max(axis)) * 4) / 4) for axis in zip(*points, strict=True)]
    (x_low, x_high), (y_low, y_high) = ((low, max(high, low + 0.25)) for low, high in ends)

    def place(a: float, b: float) -> tuple[float, float]:
        across = (log10(a) - x_low) / (x_high - x_low)
        up = (log10(max(b, 1e-3)) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for power in range(-3, 9):
        for digit in (1, 2, 5):
            value = digit * 10.0**power
            if x_low <= log10(value) <= x_high:
                at = place(value, 10**y_low)
                pen.line([at, place(value, 10**y_high)], fill="#dddddd")
                pen.text((at[0], at[1] + 6), f"{value:,.0f}", fill="black", font=font, anchor="ma")
            if y_low <= log10(value) <= y_high:
                at = place(10**x_low, value)
                pen.line([at, place(10**x_high, value)], fill="#dddddd")
                pen.text((at[0] - 6, at[1]), f"{value:g}", fill="black", font=font, anchor="rm")
    pen.text((LEFT, HEIGHT - 24), f"{y} over {x}", fill="black", font=font)
    for number, (name, runs) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        for run in runs:
            places = [place(a, b) for a, b in run]
            for start, end in pairwise(places):
                # A dash of its own tells apart what has the same colour.
                pen.line([start, end], fill=colour, width=2 if number < len(COLOURS) else 1)
            for px, py in places:
                pen.ellipse([px - 3, py - 3, px + 3, py + 3], fill=colour)
        row = TOP + 20 * number
        pen.line([(WIDTH - RIGHT + 20, row + 8), (WIDTH - RIGHT + 45, row + 8)], fill=colour,
                 width=3 if number < len(COLOURS) else 1)  # fmt: skip
        pen.text((WIDTH - RIGHT + 52, row), name, fill="black", font=font)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(HEIGHT, WIDTH, 3).permute(2, 0, 1)
