"""The viewer as a widget of a notebook, by anywidget."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from upweight.report.document import safe_json
from upweight.report.viewer.server import Answers

MIN_HEIGHT, MAX_HEIGHT = 200, 5000  # pixels


def viewer_widget(answers: Answers, page: str, height: int) -> Any:
    """A widget that shows this page, and answers its questions while the kernel runs.

    Raises ModuleNotFoundError, with what to install, without anywidget; ValueError for a height out of bounds.
    """
    if isinstance(height, bool) or not isinstance(height, int) or not MIN_HEIGHT <= height <= MAX_HEIGHT:
        raise ValueError(f"expected a height from {MIN_HEIGHT} to {MAX_HEIGHT} pixels, got {height!r}")
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a widget needs anywidget: pip install 'upweight[notebook]', or use viewer.serve(), which needs nothing"
        ) from error

    class ViewerWidget(anywidget.AnyWidget):  # type: ignore[misc]
        """The page in a frame; questions come as messages."""

        _esm = files("upweight.report").joinpath("viewer/widget.js").read_text(encoding="utf-8")
        page = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int().tag(sync=True)

    widget = ViewerWidget(page=page, height=height)
    widget.on_msg(lambda _, message, buffers: widget.send(answer_to(answers, message)))
    return widget


def answer_to(answers: Answers, message: Any) -> dict[str, Any]:
    """The message that answers a message: the part as JSON, or an error in a sentence."""
    if not isinstance(message, dict):
        return {"error": "expected a question of the viewer"}
    reply = {name: message.get(name) for name in ("view", "number")}
    try:
        given = message.get("parameters") or {}
        parameters = {str(name): str(value) for name, value in given.items()}
        return {**reply, "part": safe_json(answers.answer(str(message.get("path")), parameters))}
    except LookupError as error:
        return {**reply, "error": str(error.args[0])}
    except Exception as error:
        return {**reply, "error": f"{type(error).__name__}: {error}"}
