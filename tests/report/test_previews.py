import base64
import io

import numpy as np
import pytest
from PIL import Image

from upweight.core.examples import Examples
from upweight.report.page_limits import PageLimits
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, regression_text, settings, significant


def picture(entry):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["uri"].split(",")[1]))))


def album(images):
    examples = Examples(np.zeros((len(images), 1)), shown=images)
    return Album(examples, examples)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (0, 1, (0, 1)),
        (0, 0.9, (0, 1)),
        (0, 16, (0, 16)),
        (0, 250.0, (0, 255)),
        (0, 60, (0, 60)),
        (-1, 1, (-1, 1)),
        (-2.1, 2.6, (-2.1, 2.6)),
    ],
)
def test_one_scale_is_chosen_for_the_whole_set(low, high, scale):
    made = album([np.linspace(low, high, 16).reshape(4, 4), np.full((4, 4), low)])
    assert made.scale == pytest.approx(scale)
    assert "one scale for the whole set" in made.remarks()[0]
    shown = picture(made.entries[made.add("train", 0)])
    assert shown[0, 0] == 0 and shown[-1, -1] == round(255 * (high - scale[0]) / (scale[1] - scale[0]))


def test_bytes_are_shown_as_they_are():
    image = np.arange(0, 240, 5, dtype=np.uint8).reshape(4, 4, 3)
    made = album([image])
    assert made.scale is None and np.array_equal(picture(made.entries[made.add("train", 0)]), image)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (1, 5, 6), (5, 6, 3), (3, 5, 6), (5, 6, 4)])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float16])
def test_every_usual_layout_is_a_picture(shape, dtype):
    made = album([np.ones(shape, dtype=dtype)])
    entry = made.entries[made.add("train", 0)]
    assert (entry["kind"], entry["width"], entry["height"]) == ("image", 6, 5)


def test_an_array_that_is_not_a_picture_is_shown_as_text():
    made = album([np.ones((2, 3, 7))])
    assert made.entries[made.add("train", 0)]["text"] == "array of 2 × 3 × 7, which is not a picture"


def test_missing_pixels_are_black():
    made = album([np.array([[np.nan, 1.0], [0.0, np.inf]]), np.full((2, 2), np.nan)])
    assert picture(made.entries[made.add("train", 0)]).tolist() == [[0, 255], [0, 255]]


def test_photographs_are_reduced():
    made = album([np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)])
    entry = made.entries[made.add("train", 0)]
    assert entry["width"] == 160 and entry["uri"].startswith("data:image/jpeg") and len(entry["uri"]) < 40_000


def test_each_preview_is_stored_once_and_pictures_left_out_are_reported():
    made = album([np.eye(4), np.eye(4)])
    assert made.add("train", 0) == made.add("train", 0) != made.add("query", 0)
    made.limits = PageLimits(picture_bytes=10)
    assert made.entries[made.add("train", 1)]["text"] == "picture left out"
    assert any("1 picture left out" in note for note in made.remarks())


def test_contact_sheet_holds_every_picture():
    images = [np.full((2, 3), i, dtype=np.uint8) for i in range(40)]
    sheet = album(images).sheet(range(40))
    paper = picture(sheet)
    for i in range(40):
        top, left = i // sheet["columns"] * 2, i % sheet["columns"] * 3
        assert (paper[top : top + 2, left : left + 3] == i).all()


def test_large_sets_get_no_contact_sheet_and_the_page_reports_it():
    made = album([np.eye(2)] * 4)
    made.limits = PageLimits(tiles=3)
    assert made.sheet(range(4)) is None and "only for the strongest" in made.remarks()[0]


def test_long_texts_say_what_is_missing():
    texts = Examples(["a" * 25_000, "b"])
    made = Album(texts, texts)
    assert made.entries[made.add("train", 0)]["more"] == 5_000 and made.excerpts([0, 1])[0].endswith("…")


def test_words():
    assert [label_text(v) for v in (1, 1.0, np.float64(-2.5), True, None, [1.0, 2])] == [
        "1",
        "1",
        "−2.5",
        "True",
        None,
        "1, 2",
    ]
    assert (count(1, "query"), count(1500, "query"), count(2, "refit")) == ("1 query", "1,500 queries", "2 refits")
    lines = dict(
        settings({"a": {"b": 1.5, "c": None}, "warnings": ["x"], "big": np.zeros(99), "e": {}}, skip=("warnings",))
    )
    assert lines == {"a.b": "1.5", "a.c": "none", "big": "array of shape (99,)", "e": "none"}


def test_the_whole_part_of_a_number_is_shown_in_full():
    for value, text in ((145_682_001.0, "145682001"), (-145_682_001.25, "−145682001.2"), (1_234_567, "1234567")):
        assert label_text(value) == cell_text(value) == text
    assert [regression_text(v) for v in (123_456.7, 9_999.7, 0.123456, 1e-7)] == ["123457", "10000", "0.1235", "1e−07"]
    assert [significant(v, 3, "+") for v in (12_345.6, 999.7, -0.5, 0.0)] == ["+12346", "+1000", "−0.5", "+0"]
