"""Recordings and series on pages: spectrograms are right, players play the recordings, lines are the values."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
import pytest

import upweight as uw
from support.browser import axe_source, opened, running_browser, until, violations
from upweight.core.scores import Scores, Unit

RATE = 8000


def tone(hertz, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(round(RATE * seconds)) / RATE)


@pytest.mark.parametrize("hertz", [400, 1500, 3500])
def test_a_tone_is_bright_at_its_frequency(hertz):
    picture = uw.Audio(tone(hertz), RATE).picture()
    assert picture.shape == (80, 160) and picture.dtype == np.uint8
    brightest = picture[::-1].mean(axis=1).argmax()  # from low to high; 80 rows up to half the rate
    assert abs(brightest * (RATE / 2) / 80 - hertz) <= RATE / 160


def test_every_spectrogram_has_a_scale_of_its_own():
    loud, quiet = uw.Audio(tone(1000), RATE).picture(), uw.Audio(1e-4 * tone(1000), RATE).picture()
    assert loud.max() == quiet.max() == 255 and np.abs(loud.astype(int) - quiet.astype(int)).max() <= 1
    assert uw.Audio(np.zeros(10), RATE).picture().max() == 0


def test_the_file_has_the_samples():
    whole = np.array([0, 1, -32768, 32767, 12], dtype=np.int16)
    for samples, expected in ((whole, np.clip(whole, -32767, 32767)), (np.array([0.5, -1.0]), [16384, -32767])):
        with wave.open(io.BytesIO(uw.Audio(samples, RATE).wav())) as read:
            assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (RATE, 1, 2)
            written = np.frombuffer(read.readframes(99), dtype="<i2")
        np.testing.assert_allclose(written, expected, atol=1)
    with wave.open(io.BytesIO(uw.Audio(100 * tone(5), RATE).wav())) as read:
        assert np.abs(np.frombuffer(read.readframes(10**6), dtype="<i2")).max() == 32767


def test_lines_are_the_values_on_a_scale_of_their_own():
    series = uw.Series([[1.0, 5.0], [np.nan, 3.0], [3.0, 1.0]])
    assert series.scale == (1.0, 5.0)
    assert series.lines() == [[[0.0, 0.0], [1.0, 0.5]], [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]]
    assert uw.Series([2.0, 2.0]).lines() == [[[0.0, 0.5], [1.0, 0.5]]]
    assert uw.Series([np.nan]).lines() == [[]] and uw.Series([np.nan]).picture().max() == 0


def test_a_peak_of_a_long_series_stays():
    values = np.zeros(10_000)
    values[4321] = 7.0
    (line,) = uw.Series(values).lines()
    assert len(line) <= 320 and [0.4321, 1.0] in line
    assert uw.Series(values).picture()[0].sum() > 0


@pytest.mark.parametrize("samples", [np.zeros((2, 2)), np.array([]), np.array(["a"]), np.array([np.inf])])
def test_what_is_no_recording_is_refused(samples):
    with pytest.raises(ValueError, match="samples of one channel"):
        uw.Audio(samples, RATE)
    with pytest.raises(ValueError, match="samples per second, got 0"):
        uw.Audio(np.zeros(3), 0)
    with pytest.raises(ValueError, match="expected finite values"):
        uw.Series([np.inf])


def report_of(shown, tmp_path):
    train = uw.Examples(np.eye(6), [0, 1] * 3, shown=shown)
    queries = train.take([1, 4])
    values = np.linspace(-1, 1, 12).reshape(2, 6)
    return uw.write_report(tmp_path / "r.html", Scores(values, queries.ids, train.ids, Unit.EFFECT), train, queries)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_has_players(width, tmp_path):
    path = report_of(uw.Audio.each([tone(300 * i + 200) for i in range(6)], RATE), tmp_path)
    with running_browser() as browser, opened(browser, path.as_uri(), width) as page:
        player = page.locator("#query audio")
        assert page.locator(".card audio").count() == 6 and page.locator("#query img").count() == 1
        player.evaluate("(node) => { node.preload = 'auto'; node.load(); }")
        until(page, "!isNaN(document.querySelector('#query audio').duration)")
        assert player.evaluate("(node) => node.duration") == pytest.approx(0.5, abs=0.01)
        content = base64.b64decode(player.get_attribute("src").split(",")[1])
        assert content == uw.Audio(tone(500), RATE).wav()
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_report_draws_series_with_their_scale(tmp_path):
    path = report_of(uw.Series.each([[i, 2.0 * i, 1.5] for i in range(6)]), tmp_path)
    with running_browser() as browser, opened(browser, path.as_uri()) as page:
        assert page.locator("#query svg polyline").count() == 1 and page.locator(".card svg").count() == 6
        assert "1.00 to 2.00" in page.locator("#query .signal").inner_text()


def test_pages_with_players_and_lines_have_no_barriers(tmp_path):
    axe_source()  # before anything else is made
    shown = [*uw.Audio.each([tone(300 * i + 200) for i in range(3)], RATE), *uw.Series.each([[1, 2], [2, 1], [0, 3]])]
    with running_browser() as browser, opened(browser, report_of(shown, tmp_path).as_uri()) as page:
        assert violations(page) == []
