"""The page of token scores: what it shows, its size, and its behaviour in a browser."""

import os
import shutil

import numpy as np
import pytest

import upweight as uw
from support.report_stand_ins import HOSTILE
from upweight.applications.common_spans import common_spans
from upweight.applications.token_scores_result import SequenceTokens, TokenScores, TokenText
from upweight.core.scores import Unit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RNG = np.random.default_rng(0)


def text(length, prompt=1, words=None):
    tokens = words or [f" w{i}" for i in RNG.integers(0, 500, length)]
    return TokenText(tuple(tokens), np.arange(len(tokens)) >= prompt)


def result(query, sequences, by="target", span=None):
    examples = uw.Examples([s.text.tokens for s in sequences], ids=[s.id for s in sequences])
    queries = uw.Examples([query.tokens], ids=["q"])
    settings = {"measurement": "−loss", "unit": Unit.RANK, "recipe": {"method": "Influence"}, "span": span}
    parts = {"queries": {"q": query}, "sequences": {"q": tuple(sequences)}, "diagnostics": {"warnings": []}}
    return TokenScores(by=by, train=examples, query_examples=queries, **settings, **parts)


def sequence(name, given, values, rest=0.0):
    return SequenceTokens(name, float(np.sum(values) + rest), given, np.asarray(values), rest)


def long_result(count=10, length=512):
    return result(text(length), [sequence(i, text(length), RNG.standard_normal(length)) for i in range(count)])


def page(tmp_path, given):
    return uw.write_page(tmp_path / "tokens.html", given).read_text(encoding="utf-8")


def test_tokens_have_the_colour_of_their_sign_and_size(tmp_path):
    html = page(
        tmp_path, result(text(3), [sequence("a", text(0, words=["up", "down", "weak", "none"]), [4, -1, 0.1, 0])])
    )
    assert (
        '<i class="p6" title="+4">up</i><i class="n3" title="−1">down</i><i class="p1" title="+0.1">weak</i>none'
        in html
    )


@pytest.mark.parametrize(("by", "words"), [("target", "Scores by target token."), ("position", "by position of the")])
def test_the_page_says_which_kind_of_scores_it_shows(tmp_path, by, words):
    html = page(tmp_path, result(text(3), [sequence("a", text(2), [1.0, 2.0])], by))
    assert words in html


def test_common_spans_are_underlined_on_both_sides_and_the_completion_is_marked(tmp_path):
    shared = [" the", " old", " harbour", " city"]
    query, train = text(0, words=["I", *shared, " sleeps"]), text(0, 3, words=["In", *shared, " rain"])
    html = page(tmp_path, result(query, [sequence("a", train, np.zeros(6))], span=(1, 3)))
    assert html.count('<u data-span="1">') == 4  # cut by the measured tokens in the query, by the completion beside it
    assert "<em>" in html and html.count("▸") == 1 and '<span class="prompt">In</span>' in html


def test_nothing_of_a_token_is_taken_for_html(tmp_path):
    html = page(tmp_path, result(text(0, words=[HOSTILE]), [sequence("a", text(0, words=[HOSTILE, "b"]), [1, 2])]))
    assert HOSTILE not in html and " style=" not in html


def test_quiet_parts_of_long_texts_are_folded_and_what_belongs_to_no_token_is_stated(tmp_path):
    values = np.zeros(400)
    values[200], values[300] = 5.0, 0.4
    html = page(tmp_path, result(text(400), [sequence("a", text(400), values, rest=2.0)]))
    assert html.count('<details class="fold">') == 3  # two of the training text, one of the query
    assert "tokens, +0.4</summary>" in html and "+2 belongs to no token" in html


def test_a_query_of_512_tokens_with_ten_texts_takes_less_than_two_megabytes(tmp_path):
    path = uw.write_page(tmp_path / "tokens.html", long_result())
    assert path.stat().st_size < 1_000_000


def test_common_spans_are_the_longest_and_equal_those_of_a_plain_loop():
    first, second = (RNG.integers(0, 3, size).astype(str).tolist() for size in (60, 80))
    wide = [[f"token{token}" for token in tokens] for tokens in (first, second)]
    spans = common_spans(*wide)
    assert all(wide[0][s.first : s.first + s.length] == wide[1][s.second : s.second + s.length] for s in spans)
    longest = max(
        length
        for length in range(1, 60)
        for i in range(60 - length + 1)
        if any(first[i : i + length] == second[j : j + length] for j in range(80 - length + 1))
    )
    assert spans[0].length == longest
    taken = [t for s in spans for t in range(s.second, s.second + s.length)]
    assert len(taken) == len(set(taken))
    assert common_spans(["a", "b", "c"], ["a", "b", "c"]) == []  # fewer than eight letters


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_in_a_browser_a_token_shows_its_number_and_a_fold_opens(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    shared = [" the", " old", " harbour", " city"]
    train = text(0, words=[*shared, *[f" w{i}" for i in range(300)]])
    given = result(text(0, words=["In", *shared]), [sequence("a", train, np.r_[9.0, np.zeros(303)])])
    path = uw.write_page(tmp_path / "tokens.html", given)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env={**os.environ}
        )
        opened = browser.new_page(viewport={"width": 390, "height": 800})
        errors = []
        opened.on("console", lambda message: errors.append(message.text))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(path.as_uri())
        opened.locator(".answers i").first.click()
        assert opened.inner_text("#reading") == "+9  the"
        assert opened.locator("u.same").count() == 2
        opened.locator(".answers summary").click()
        assert opened.locator(".answers details[open]").count() == 1
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        assert errors == []
        browser.close()
