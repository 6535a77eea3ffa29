"""Curves with two logarithmic axes, drawn without a plotting library."""

from colorsys import hls_to_rgb
from itertools import pairwise
from math import ceil, floor, log10

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
DIGITS, LEAST = (1, 2, 5), 1e-6  # of ticks, and what is not positive
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 1100, 640, 70, 20, 300, 60


def colour_of(number: int) -> str:
    """The colour of the curve with this number, from 0 on: ten that are told apart easily, then as many as it takes."""
    if number < len(COLOURS):
        return COLOURS[number]
    red, green, blue = hls_to_rgb(number * 0.381966 % 1, 0.36 + 0.14 * (number % 3), 0.7)  # by the golden angle
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def ticks(low: float, high: float) -> list[float]:
    """Values with few digits between 10^low and 10^high: of each power of ten, or at even steps within one."""
    if high - low >= 1:
        values = [digit * 10.0**power for power in range(floor(low), ceil(high) + 1) for digit in DIGITS]
    else:
        span = 10**high - 10**low
        power = 10.0 ** floor(log10(span))
        step = next(s for s in (power / 5, power / 2, power, 2 * power) if span / s <= 7)
        values = [step * n for n in range(ceil(10**low / step), floor(10**high / step) + 1)]
    return [value for value in values if low <= log10(value) <= high]


def curves(lines: dict[str, list[list[tuple[float, float]]]], x: str, y: str) -> Tensor:
    """A picture (3, H, W), uint8: a colour a name, a line for each of its lists of points (positive x, positive y)."""
    points = [(a, max(b, LEAST)) for runs in lines.values() for run in runs for a, b in run]
    ends = [(log10(min(axis)), log10(max(axis))) for axis in zip(*points, strict=True)]
    margins = [max(0.04 * (high - low), 0.01) for low, high in ends]
    (x_low, x_high), (y_low, y_high) = ((e[0] - m, e[1] + m) for e, m in zip(ends, margins, strict=True))

    def place(a: float, b: float) -> tuple[float, float]:
        across = (log10(a) - x_low) / (x_high - x_low)
        up = (log10(max(b, LEAST)) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    font = ImageFont.load_default(size=14)
    names = max((round(font.getlength(name)) for name in lines), default=0)
    width, height = max(WIDTH, WIDTH - RIGHT + 60 + names), max(HEIGHT, 2 * TOP + 20 * len(lines))  # all names fit
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    for value in ticks(x_low, x_high):
        at = place(value, 10**y_low)
        pen.line([at, place(value, 10**y_high)], fill="#dddddd")
        pen.text((at[0], at[1] + 6), f"{value:,.0f}", fill="black", font=font, anchor="ma")
    for value in ticks(y_low, y_high):
        at = place(10**x_low, value)
        pen.line([at, place(10**x_high, value)], fill="#dddddd")
        pen.text((at[0] - 6, at[1]), f"{value:.6g}", fill="black", font=font, anchor="rm")
    pen.text((LEFT, HEIGHT - 24), f"{y} over {x}", fill="black", font=font)
    row = TOP
    for number, (name, runs) in enumerate(lines.items()):
        colour = colour_of(number)  # also where others before have no points
        for run in runs:
            places = [place(a, b) for a, b in run]
            for start, end in pairwise(places):
                pen.line([start, end], fill=colour, width=2)
            for px, py in places:
                pen.ellipse([px - 3, py - 3, px + 3, py + 3], fill=colour)
        if any(runs):
            pen.line([(WIDTH - RIGHT + 20, row + 8), (WIDTH - RIGHT + 45, row + 8)], fill=colour, width=3)
            pen.text((WIDTH - RIGHT + 52, row), name, fill="black", font=font)
            row += 20
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(height, width, 3).permute(2, 0, 1)
