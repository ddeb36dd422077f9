"""The viewer in a notebook: its frame asks by messages, and Python answers."""

from __future__ import annotations

import json
from importlib.resources import files
from types import SimpleNamespace

import pytest

import upweight as uw
from support.browser import running_browser, until
from upweight.report.viewer.widget import answer_to


def test_questions_are_answered_and_wrong_ones_have_an_error(digits):
    viewer = uw.Viewer(*digits)
    answered = answer_to(viewer, {"view": 3, "number": 7, "path": "query", "parameters": {"at": 2}})
    assert json.loads(answered.pop("part")) == json.loads(json.dumps(viewer.answer("query", {"at": "2"})))
    assert answered == {"view": 3, "number": 7}
    assert answer_to(viewer, {"view": 1, "number": 2, "path": "query", "parameters": {"at": 99}})["error"]
    assert "ValueError" in answer_to(viewer, {"path": "rows", "parameters": {"at": "x"}})["error"]
    assert answer_to(viewer, "nonsense")["error"] and answer_to(viewer, {"path": "query", "parameters": 3})["error"]


def test_without_anywidget_the_error_says_what_to_install(digits, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
    viewer = uw.Viewer(*digits)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'upweight\[notebook\]'"):
        viewer.widget()
    assert "upweight[notebook]" in viewer._repr_mimebundle_()["text/plain"]
    with pytest.raises(ValueError, match="a height from 200 to 5000 pixels, got 20"):
        viewer.widget(height=20)


def test_the_widget_answers_what_its_view_asks(digits):
    pytest.importorskip("anywidget")
    widget, sent = uw.Viewer(*digits).widget(height=700), []
    assert widget.height == 700 and "<title>upweight viewer" in widget.page
    widget.send = lambda message, buffers=None: sent.append(message)
    widget._handle_custom_msg({"view": 1, "number": 5, "path": "queries", "parameters": {}}, [])
    assert json.loads(sent[0]["part"])["total"] == 4


HOST = """<!doctype html><title>host</title><body><script type="module">
import widget from "data:text/javascript;base64,%s";
const listeners = [];
const model = {
  get: (name) => window.STATE[name], on: (_, listener) => listeners.push(listener), off: () => {},
  send: (message) => window.askPython(message).then((answer) => listeners.forEach((listen) => listen(answer))),
};
window.cleanup = widget.render({ model, el: document.body });
</script>"""


def test_the_frame_in_a_page_shows_and_steps_through_queries(digits):
    import base64

    viewer = uw.Viewer(*digits)
    source = files("upweight.report").joinpath("viewer/widget.js").read_bytes()
    state = SimpleNamespace(page=viewer.page("message"), height=800)
    with running_browser() as browser:
        page, messages = browser.new_page(), []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.expose_function("askPython", lambda message: answer_to(viewer, message))
        page.add_init_script(f"window.STATE = {json.dumps(vars(state))}")
        page.route(
            "http://host.test/",
            lambda route: route.fulfill(body=HOST % base64.b64encode(source).decode(), content_type="text/html"),
        )
        page.goto("http://host.test/")
        frame = page.wait_for_selector("iframe[title='upweight viewer']").content_frame()
        frame.wait_for_selector("#table-body tr")
        frame.wait_for_selector("#overview .overall")
        frame.locator("#query-list button").nth(2).click()
        until(frame, "document.querySelector('#query-title').innerText === 'Query q2'")
        frame.fill("#filter", "nothing at all")
        until(frame, "document.querySelector('#table-count').innerText.startsWith('No training example')")
        assert frame.evaluate("location.href") == "about:srcdoc" and messages == []
