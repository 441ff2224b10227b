"""On a phone each figure is shown as it was drawn for one: narrow, panels stacked."""

from __future__ import annotations

import importlib
import json
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from playwright.sync_api import Browser

from tests.book.contents import LISTED, ROOT
from tests.book.small_books import CELL, FRONT_MATTER, build, digests, html, make_book

sys.path.append(str(ROOT / "book/_ext/kernels/python3"))
narrow_figures = importlib.import_module("narrow_figures")

WIDE, PHONE = 1280, 390  # pixels
IN_PHONE = 358  # of which a figure has so many
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def book_style() -> Any:
    with matplotlib.rc_context(fname=ROOT / "book/matplotlibrc"):
        yield


def drawn(figure: Figure) -> str:
    drawing = StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def two_panels(**settings: Any) -> Figure:
    figure = Figure()
    for i, ax in enumerate(figure.subplots(1, 2, **settings)):
        ax.plot([1, 10], [1, 10 ** (i + 3)], label=f"a loss of some name, {i}")
        ax.set(xlabel="epoch", title=f"panel {i}", yscale="log")
    figure.axes[0].set_ylabel("loss")
    return figure


def bounds(figure: Figure) -> list[tuple[float, ...]]:
    figure.draw_without_rendering()
    return [ax.get_position().bounds for ax in figure.axes]


def test_the_panels_of_a_row_are_stacked_in_their_order() -> None:
    narrow = narrow_figures.narrowed(two_panels())
    (left, bottom, width, height), (*below, _, _) = bounds(narrow)
    assert narrow.get_figwidth() == narrow_figures.WIDTH
    assert width > 0.6 and height < 0.5
    assert below[0] == left and below[1] < bottom - height
    assert [ax.get_title() for ax in narrow.axes] == ["panel 0", "panel 1"]


def test_panels_that_share_a_scale_have_its_numbers_and_its_name_each() -> None:
    wide = two_panels(sharey=True)
    narrow = narrow_figures.narrowed(wide)
    for figure, names in ((wide, ["loss", ""]), (narrow, ["loss", "loss"])):
        figure.draw_without_rendering()
        for ax, name in zip(figure.axes, names, strict=True):
            assert ax.get_ylabel() == name
            labels = [label.get_text() for label in ax.get_yticklabels() if label.get_visible()]
            assert bool(labels) == bool(name)


def test_panels_with_scales_of_their_own_keep_the_names_they_have() -> None:
    narrow = narrow_figures.narrowed(two_panels())
    assert [ax.get_ylabel() for ax in narrow.axes] == ["loss", ""]


def test_a_twin_stays_with_its_panel() -> None:
    wide = two_panels()
    wide.axes[1].twinx().set_ylabel("share")
    first, second, twin = bounds(narrow_figures.narrowed(wide))
    assert second == twin != first


@pytest.mark.parametrize("kind", ["rows", "colours"])
def test_other_figures_are_only_narrowed(kind: str) -> None:
    wide = Figure()
    panels = wide.subplots(2, 2) if kind == "rows" else wide.subplots(1, 2)
    if kind == "colours":
        wide.colorbar(panels[0].pcolormesh([[0, 1]]), ax=panels)
    narrow = narrow_figures.narrowed(wide)
    (left, bottom, *_), (right, beside, *_) = bounds(narrow)[:2]
    assert narrow.get_size_inches().tolist() == [narrow_figures.WIDTH, wide.get_figheight()]
    assert right > left and beside == bottom


def test_a_narrow_figure_keeps_its_width() -> None:
    wide = Figure(figsize=(3, 2))
    wide.subplots()
    assert narrow_figures.narrowed(wide).get_figwidth() == 3


def test_a_legend_outside_takes_as_many_columns_as_there_is_room_for() -> None:
    wide = two_panels()
    wide.axes[0].plot([1, 10], [1, 1], label="x")
    wide.legend(loc="outside upper center", ncols=3)
    narrow = narrow_figures.narrowed(wide)
    narrow.draw_without_rendering()
    (legend,) = narrow.legends
    box = legend.get_window_extent()
    assert narrow.bbox.x0 <= box.x0 and box.x1 <= narrow.bbox.x1
    texts = legend.get_texts()
    assert sorted(text.get_text() for text in texts) == sorted(
        text.get_text() for text in wide.legends[0].get_texts()
    )
    places = {text.get_window_extent().bounds[:2] for text in texts}
    assert len(places) == 3
    assert max(ax.get_tightbbox().y1 for ax in narrow.axes) <= box.y0
    assert narrow.get_figheight() > narrow_figures.narrowed(two_panels()).get_figheight()


def test_a_wide_legend_above_its_axes_leaves_them_their_width() -> None:
    wide = two_panels()
    ax = wide.axes[1]
    ax.plot([1, 10], [1, 1], label="a loss of another name")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    narrow = narrow_figures.narrowed(wide)
    above, below = bounds(narrow)
    assert below[2] == above[2] > 0.7
    assert narrow.axes[1].get_legend().get_window_extent().x1 <= narrow.bbox.x1


def test_a_unit_stands_below_a_name_that_is_too_long_for_its_axis() -> None:
    wide = two_panels()
    wide.axes[0].set_ylabel("largest running loss (loss units)")
    wide.axes[1].set_xlabel("distance from the global minimiser (weight units)")
    narrow = narrow_figures.narrowed(wide)
    narrow.draw_without_rendering()
    first, second = narrow.axes
    assert first.get_xlabel() == "epoch"
    assert first.get_ylabel() == "largest running loss\n(loss units)"
    assert second.get_xlabel() == "distance from the global minimiser\n(weight units)"
    box = second.xaxis.label.get_window_extent()
    assert narrow.bbox.x0 <= box.x0 and box.x1 <= narrow.bbox.x1
    assert wide.axes[0].get_ylabel() == "largest running loss (loss units)"


def test_the_figure_itself_and_pyplot_stay_as_they_are() -> None:
    plt.close("all")  # what earlier tests have left open
    wide, _ = plt.subplots(1, 2, sharey=True)
    wide.axes[0].xaxis.set_major_formatter(lambda x, position: f"{x} epochs")  # no pickle takes it
    other = plt.figure()
    drawing, figures = drawn(wide), plt.get_fignums()
    narrow = narrow_figures.narrowed(wide)
    assert "epochs" in narrow.axes[0].get_xticklabels()[0].get_text()
    assert drawn(narrow) == drawn(narrow_figures.narrowed(wide)) != drawing
    assert drawn(wide) == drawing
    assert plt.get_fignums() == figures and plt.gcf() is other
    plt.close("all")


# On a page

PANELS = """\
import matplotlib.pyplot as plt

fig, panels = plt.subplots(1, 2, sharey=True)
for ax in panels:
    ax.semilogy([1, 10], [1, 1e3])
    ax.set_xlabel("epoch")"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = FRONT_MATTER + CELL.format(source=PANELS) + CELL.format(source="fig")
    root = make_book(tmp_path_factory.mktemp("narrow"), {"panels": page})
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def pictures(page: str) -> list[tuple[str, str]]:
    """Name the narrow and the wide drawing of each figure of a page, as it does."""
    found = (
        r'<picture><source [^>]*srcset="([^"]+)"[^>]*><img [^>]*src="([^"]+\.svg)"[^>]*></picture>'
    )
    return re.findall(found, page)


def points(drawing: Path) -> list[float]:
    """Return the width and the height of a drawing."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing.read_text(encoding="utf-8"))
    assert found
    return [float(number) for number in found.groups()]


def letters(drawing: Path) -> tuple[float, float]:
    """Return the size of the smallest text of a drawing, and of its smallest letter, in points.

    Letters are outlines, a hundred units high; those of an exponent are scaled a second time.
    """
    texts = ElementTree.parse(drawing).findall(f".//{SVG}g[@transform]")
    sizes = [(size, text) for text in texts if (size := 100 * scale(text)) != 100]
    smallest = [size * scale(letter) for size, text in sizes for letter in text.iter(f"{SVG}use")]
    return min(size for size, _ in sizes), min(smallest)


def scale(element: ElementTree.Element) -> float:
    found = re.search(r"scale\(([\d.]+)", element.get("transform", ""))
    return float(found[1]) if found else 1


def test_a_page_has_two_drawings_of_a_figure_one_for_phones(book: Path) -> None:
    images = book / "_build/html/_images"
    narrow, wide = pictures(html(book, "panels"))[0]
    assert {path.name for path in images.iterdir()} == {Path(narrow).name, Path(wide).name}
    width, height = points(images / Path(wide).name)
    assert points(images / Path(narrow).name) == [324, 403.2]
    assert width > height


def test_a_cell_that_shows_a_figure_again_shows_the_same_one(book: Path) -> None:
    first, second = pictures(html(book, "panels"))
    assert first == second
    assert html(book, "panels").count("<picture>") == 2


def test_the_notebook_to_download_has_the_wide_drawing_alone(book: Path) -> None:
    path = book / "_build/html/_sources/book/panels.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if "image/svg+xml" in output["data"]]
    assert len(drawn) == 2
    assert not any(output["metadata"] for output in drawn)
    assert path.read_text(encoding="utf-8").count("<svg") == 2


def test_a_rebuild_without_an_execution_has_both_drawings(book: Path) -> None:
    before = digests(book)
    page = book / "book/panels.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text + "\nA new line.\n", encoding="utf-8")
    result = build(book)
    assert result.returncode == 0 and "Executed" not in result.stdout
    page.write_text(text, encoding="utf-8")
    assert build(book).returncode == 0
    assert digests(book) == before


def test_a_figure_without_a_narrow_drawing_fails_the_build(tmp_path: Path) -> None:
    source = "from IPython.display import SVG\n\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"
    root = make_book(tmp_path, {"by-hand": FRONT_MATTER + CELL.format(source=source)})
    result = build(root)
    assert result.returncode
    assert "a figure has no narrow drawing for phones" in result.stdout


def test_a_phone_shows_the_narrow_drawing_with_letters_to_read(
    book: Path, browser: Browser
) -> None:
    names = [Path(name).name for name in pictures(html(book, "panels"))[0]]
    for width, name in zip((PHONE, WIDE), names, strict=True):
        with browser.new_page(viewport={"width": width, "height": 800}) as tab:
            tab.goto((book / "_build/html/book/panels.html").as_uri())
            image = tab.locator("picture img").first
            image.evaluate("(image) => image.decode()")
            shown, pixels = image.evaluate("(image) => [image.currentSrc, image.clientWidth]")
        assert shown.endswith(f"/{name}")
        drawing = book / "_build/html/_images" / name
        text, letter = (size * pixels / points(drawing)[0] for size in letters(drawing))
        assert text >= 11
        assert 0.69 < letter / text < 0.71  # exponents were found
        assert letter >= 9


# The whole book


def test_no_figure_of_the_book_has_letters_too_small_for_a_phone(site: Path) -> None:
    small = {}
    for page in LISTED:
        path = site / f"{page}.html"
        for narrow, _ in pictures(path.read_text(encoding="utf-8")):
            drawing = path.parent / narrow
            text, letter = (size * IN_PHONE / points(drawing)[0] for size in letters(drawing))
            if text < 11 or letter < 9:
                small[narrow] = page, text, letter
    assert not small


def test_every_figure_of_the_book_has_a_drawing_for_phones(site: Path) -> None:
    images = site / "_images"
    drawings = {path.name for path in images.glob("*.svg")}
    narrow = {name for name in drawings if name.endswith("-narrow.svg")}
    assert len(narrow) > 50
    assert {name.replace(".svg", "-narrow.svg") for name in drawings - narrow} == narrow
