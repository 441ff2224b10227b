"""The figures' colours, seen on the page, in the dark, and by readers with colour blindness."""

import re
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sgd_analysis import figures

BOOK = Path(__file__).parents[2] / "book"
STYLE = matplotlib.rc_params_from_file(BOOK / "matplotlibrc", use_default_template=False)
CSS = (BOOK / "_assets/book.css").read_text(encoding="utf-8")

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
# deficiency" (2009), severity 1.0: what remains of linear red, green and blue.
SIGHT = {
    "colour vision": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# Linear sRGB to CIE XYZ (IEC 61966-2-1); white has Y = 1.
XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=float
)
# CSS's hue-rotate(180deg), and its invert(0.93) before it (Filter Effects, level 1).
HALF_TURN = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])
PAPER = {"light": "#FFFFFF", "dark": "#121212"}  # the pages' backgrounds
APART = 12  # in units of CIE 1976, where 2.3 is just noticed

CYCLE = [matplotlib.colors.to_hex(colour) for colour in STYLE["axes.prop_cycle"].by_key()["color"]]
ROLES = ("PRINTED", "OF_THE_MODEL", "MEASURED", "PREDICTED", "REFERENCE")
REGISTER = {role: getattr(figures, role) for role in ROLES} | figures.METHODS | figures.ORDERS
COLOURS = sorted({kind["color"].lower() for kind in REGISTER.values()})
# Each of these pairs is one thing by two names, or two of one family.
ONE_COLOUR = [{"SGD", "reshuffle"}, {"with_replacement", "independent"}]


def rgb(colour):
    return np.array(matplotlib.colors.to_rgb(colour))


def drawn(colour, mode):
    """The colour on the screen: in the dark, the pages' filter is applied to it."""
    if mode == "light":
        return rgb(colour)
    return np.clip(HALF_TURN @ (0.93 - 0.86 * rgb(colour)), 0, 1)


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG's ratio of two relative luminances."""
    darker, lighter = sorted(XYZ[1] @ linear(colour) + 0.05 for colour in (one, other))
    return lighter / darker


def lab(colour, sight):
    seen = np.clip(SIGHT[sight] @ linear(colour), 0, 1)
    ratio = XYZ @ seen / XYZ.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one, other, sight):
    """The colour difference of CIE 1976."""
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


def test_the_measures_of_colour_agree_with_published_values():
    assert_allclose(contrast(rgb("#FFFFFF"), rgb("#000000")), 21)
    assert_allclose(contrast(rgb("#FFFFFF"), rgb("#767676")), 4.54, atol=0.01)
    red = lab(rgb("#FF0000"), "colour vision")
    assert_allclose(red, [53.24, 80.09, 67.20], atol=0.1)  # sRGB's red under D65
    for sight in SIGHT.values():
        assert_allclose(sight.sum(axis=1), 1, atol=1e-5)  # greys stay grey


def test_the_pages_filter_figures_in_the_dark_as_is_assumed_here():
    assert re.search(r'"dark".*\.svg"[^{]*\{[^}]*invert\(0\.93\) hue-rotate\(180deg\)', CSS)
    assert_allclose(drawn("#000000", "dark"), 0.93)


@pytest.mark.parametrize("mode", PAPER)
@pytest.mark.parametrize("colour", sorted({*COLOURS, *CYCLE}))
def test_a_line_stands_out_from_the_page(colour, mode):
    assert contrast(drawn(colour, mode), rgb(PAPER[mode])) >= 3.5


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", PAPER)
def test_two_colours_can_be_told_apart(mode, sight):
    close = {
        pair: distance(drawn(pair[0], mode), drawn(pair[1], mode), sight)
        for pair in combinations(COLOURS, 2)
    }
    assert min(close.values()) >= APART, min(close, key=close.get)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", PAPER)
def test_a_line_stands_out_from_the_backdrop_it_is_drawn_on(mode, sight):
    alpha = figures.BACKDROP["alpha"]
    backdrop = alpha * drawn(figures.BACKDROP["color"], mode) + (1 - alpha) * rgb(PAPER[mode])
    assert min(distance(drawn(colour, mode), backdrop, sight) for colour in COLOURS) >= APART


def test_a_colour_means_one_thing():
    shared = [
        {one, other}
        for (one, first), (other, second) in combinations(REGISTER.items(), 2)
        if first["color"].lower() == second["color"].lower()
    ]
    assert shared == ONE_COLOUR


def test_the_cycle_is_shades_of_what_is_measured():
    hues = {round(matplotlib.colors.rgb_to_hsv(rgb(colour))[0], 2) for colour in CYCLE}
    assert CYCLE[0] == figures.MEASURED["color"].lower()
    assert max(hues) - min(hues) < 0.03


def test_two_lines_of_the_cycle_differ_in_their_dashes_too():
    dashes = STYLE["axes.prop_cycle"].by_key()["linestyle"]
    assert len({str(dash) for dash in dashes}) == len(CYCLE)
