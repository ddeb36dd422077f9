"""The review page in a real browser: keys decide, decisions survive, the patch is the one that Python applies."""

import json
import os
import shutil

import numpy as np
import pytest

import upweight as uw
from support.report_stand_ins import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def suspects():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 2)) + 3 * np.eye(3)[y][:, :2]
    y[[0, 4, 8]] = (y[[0, 4, 8]] + 1) % 3
    names = {0: "ham", 1: "spam " + HOSTILE, 2: "news"}
    texts = [f"mail {i} {HOSTILE}" for i in range(90)]
    train = uw.Examples(x, y, ids=[f"m{i}" for i in range(90)], labels=names, shown=texts)
    held_out = uw.Examples(x, y, labels=names)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(x, y), train)
    return uw.mislabeled(model, train, budget=6, evaluation=held_out)


@pytest.fixture
def page(suspects, tmp_path):
    """A review in a browser that keeps its storage, and a clean console."""
    playwright = pytest.importorskip("playwright.sync_api")
    path, said = uw.write_page(tmp_path / "review.html", suspects), []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            env={**os.environ, "LANG": "en_US.UTF-8"},
        )
        opened = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page = opened.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        yield page
        assert said == []
        browser.close()


def press(page, keys):
    for key in keys:
        page.keyboard.press(key)


def saved(page, tmp_path):
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    waiting.value.save_as(tmp_path / "patch.json")
    return tmp_path / "patch.json"


def tally(page):
    return page.inner_text("#tally")


def test_keys_decide_and_the_patch_applies(page, suspects, tmp_path):
    assert tally(page).startswith("0 of 6 decided") and page.is_disabled("#save") and page.is_disabled("#undo")
    assert suspects.ids[0] in page.inner_text(".where")
    press(page, "ard")
    assert tally(page) == "3 of 6 decided: 1 relabelled, 1 dropped, 1 kept"
    patch = uw.Patch.load(saved(page, tmp_path))
    assert [d.id for d in patch.decisions] == [suspects.ids[0], suspects.ids[2]]
    assert patch.decisions[0].new == suspects.suggested[0] and patch.decisions[1].new is None
    fixed = patch.applied(suspects.train)
    assert len(fixed) == 89 and fixed.y[fixed.positions([suspects.ids[0]])[0]] == suspects.suggested[0]


def test_undo_takes_back_in_order(page, suspects):
    press(page, "aau")
    assert tally(page).startswith("1 of 6 decided") and suspects.ids[1] in page.inner_text(".where")
    press(page, "u")
    assert tally(page).startswith("0 of 6 decided") and suspects.ids[0] in page.inner_text(".where")
    press(page, "u")
    assert tally(page).startswith("0 of 6 decided")


def test_an_earlier_decision_can_be_changed_and_the_change_undone(page):
    press(page, ["a", "ArrowLeft", "r"])
    assert tally(page) == "1 of 6 decided: 0 relabelled, 0 dropped, 1 kept"
    press(page, "u")
    assert tally(page) == "1 of 6 decided: 1 relabelled, 0 dropped, 0 kept"


def test_decisions_survive_a_reload(page, suspects, tmp_path):
    press(page, "adr")
    page.reload()
    assert tally(page) == "3 of 6 decided: 1 relabelled, 1 dropped, 1 kept"
    assert suspects.ids[3] in page.inner_text(".where")
    press(page, "u")
    assert tally(page).startswith("2 of 6 decided")
    assert len(json.loads(saved(page, tmp_path).read_text())["decisions"]) == 2


def test_another_label_by_hand(page, suspects, tmp_path):
    options = page.locator("#other option").all_inner_texts()
    assert len(options) == 2, "what is given and what is suggested have buttons of their own"
    page.select_option("#other", index=1)
    decision = uw.Patch.load(saved(page, tmp_path)).decisions[0]
    given = suspects.train.y[suspects.train.positions([decision.id])[0]]
    assert {given.item(), suspects.suggested[0], decision.new} == {0, 1, 2}


def test_damaged_storage_is_no_obstacle(page):
    page.evaluate('Object.keys(localStorage).forEach((key) => localStorage.setItem(key, \'{"at": 99, "decided": 3}\'))')
    page.reload()
    assert tally(page).startswith("0 of 6 decided")


def test_fits_a_telephone_and_shows_hostile_text_as_text(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert "null" not in page.inner_text("#suspect") and "undefined" not in page.inner_text("main")
    assert HOSTILE.replace("\ud800", "?")[:6] in page.inner_text(".passage")
