"""Masks over pictures and boxes on them: where they are drawn, that classes differ in greyscale, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import upweight as uw
from support.browser import opened, running_browser, until, violations
from upweight.core.scores import Scores, Unit
from upweight.report.picture_marks import marked, swatch
from upweight.report.pictures import shown_pixels

SIDES = (24, 32)
NAMES = {1: "ball", 2: "road"}


def mask():
    classes = np.zeros(SIDES, dtype=int)
    classes[4:10, 4:12], classes[18:, :] = 1, 2
    return classes


def pictures(count):
    grey = [np.full(SIDES, 40 * i % 255, dtype=np.uint8) for i in range(count)]
    colour = [np.stack([g, g, g], axis=2 * (i % 2)) for i, g in enumerate(grey)]  # channels first and last in turn
    return uw.Picture.each(colour, [mask()] * count, [[[3, 3, 13, 11]]] * count, [[2]] * count, NAMES)


def examples(count=6):
    return uw.Examples(np.eye(count), [0, 1] * (count // 2), shown=pictures(count))


def test_marks_are_where_the_mask_and_the_box_are():
    plain = np.full(SIDES, 128, dtype=np.uint8)
    filled = marked(plain, uw.Picture(plain, mask()))
    changed = (filled != 128).any(axis=2)
    np.testing.assert_array_equal(changed, mask() > 0)
    framed = (marked(plain, uw.Picture(plain, boxes=[[2, 5, 12, 20]])) != 128).any(axis=2)
    rows, columns = np.nonzero(framed)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (2, 5, 12, 20)
    assert not framed[6:19, 3:11].any()


def test_marks_follow_the_size_at_which_a_picture_is_shown():
    preview = examples().preview(3)
    for side, sides in ((12, (9, 12)), (320, (240, 320))):
        drawn = shown_pixels(preview, None, side)
        assert drawn.shape == (*sides, 3)
        row, column = round(0.3 * sides[0]), round(0.25 * sides[1])  # within the mask of the ball
        assert (np.ptp(drawn[row, column].astype(int)) > 30) and np.ptp(drawn[row // 3, -2]) == 0


def test_a_box_beyond_the_picture_is_cut_at_its_edge():
    plain = np.zeros((80, 80), dtype=np.uint8)
    drawn = marked(plain, uw.Picture(plain, boxes=[[-30, 10, 200, 60], [90, 90, 99, 99]]))
    assert drawn[11, 40].any() and not drawn[70].any()


def test_classes_differ_without_colour():
    greys = [np.asarray(swatch(c), dtype=float) @ [0.299, 0.587, 0.114] for c in range(1, 6)]
    for a in range(5):
        for b in range(a):
            assert np.abs(greys[a] - greys[b]).mean() > 8, (a + 1, b + 1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mask": np.zeros((3, 3), dtype=int)}, "as high and wide as the picture"),
        ({"mask": np.zeros(SIDES)}, "booleans or of whole numbers"),
        ({"mask": np.full(SIDES, -1)}, "whole numbers from 0"),
        ({"boxes": [[0, 0, 5]]}, "left, top, right, bottom"),
        ({"boxes": [[9, 0, 5, 5]]}, "comes before"),
        ({"boxes": [[0, 0, 5, np.nan]]}, "finite boxes"),
        ({"boxes": [[0, 0, 5, 5]], "box_classes": [0]}, "one whole number from 1"),
        ({"boxes": [[0, 0, 5, 5]], "box_classes": [1, 2]}, "each of 1 boxes"),
    ],
)
def test_marks_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        uw.Picture(np.zeros(SIDES), **parts)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="expected pixels"):
        uw.Picture(np.zeros(4))
    with pytest.raises(ValueError, match="3 or 4 channels"):
        uw.Picture(np.zeros((7, 7, 7)))
    with pytest.raises(ValueError, match=r"one entry per picture \(2\), got 1"):
        uw.Picture.each(np.zeros((2, 4, 4)), masks=[None])


def test_exported_pictures_have_their_marks(tmp_path):
    from sklearn.linear_model import LogisticRegression

    train = examples(12)
    suspects = uw.mislabeled(uw.explainable(LogisticRegression().fit(train.x, train.y), train), train, budget=3)
    folder = uw.LabelTable().write(tmp_path / "labels", suspects)
    from PIL import Image

    for path in folder.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() > 30, path
    assert list(folder.rglob("*.png"))


@pytest.mark.parametrize("width", [1280, 390])
def test_report_viewer_and_review_show_marks_and_hide_them(width, tmp_path):
    from sklearn.linear_model import LogisticRegression

    train = examples(12)
    queries = train.take([1, 4])
    scores = Scores(np.linspace(-1, 1, 24).reshape(2, 12), queries.ids, train.ids, Unit.EFFECT)
    model = uw.explainable(LogisticRegression().fit(train.x, train.y), train)
    report = uw.write_report(tmp_path / "report.html", scores, train, queries)
    review = uw.write_page(tmp_path / "review.html", uw.mislabeled(model, train, budget=3))
    with running_browser() as browser, uw.Viewer(scores, train, queries).serve() as server:
        pages = ((report.as_uri(), "#query"), (review.as_uri(), "#suspect"), (server.url, "#query"))
        for url, place in pages:
            with opened(browser, url, width) as page:
                until(page, f"document.querySelector('{place} .marked') !== null")
                assert page.locator(f"{place} .marks").inner_text().split() == ["ball", "road", "without", "marks"]
                shot = page.locator(f"{place} .marked > .shot")
                before = shot.get_attribute("src")
                assert "marked: ball, road" in shot.get_attribute("alt")
                page.locator(f"{place} .marks button").click()
                assert shot.get_attribute("src") != before
                page.locator(f"{place} .marks button").click()
                assert shot.get_attribute("src") == before
                assert page.evaluate("document.documentElement.scrollWidth") == width
        for url, place in pages:  # last: where there is no axe-core, the test ends here
            with opened(browser, url, width) as page:
                until(page, f"document.querySelector('{place} .marked') !== null")
                assert violations(page) == []
