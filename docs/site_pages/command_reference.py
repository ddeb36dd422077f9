"""The page of all commands and their options, written from the command line itself."""

from __future__ import annotations

import typer
from typer.main import get_command

from upweight.cli import app


def page() -> str:
    """The Markdown of the page."""
    root = get_command(app)
    context = typer.Context(root, info_name="upweight")
    head = f"# Command line\n\n{_text(root.help)}\n\n`upweight COMMAND --help` shows the same in a terminal.\n"
    return head + "".join(_sections(root, context))


def _sections(command, context, depth=2):
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner.hidden:
            continue
        inner_context = typer.Context(inner, info_name=name, parent=context)
        yield f"\n{'#' * depth} {inner_context.command_path}\n\n{_text(inner.help)}\n"
        if hasattr(inner, "list_commands"):
            yield from _sections(inner, inner_context, depth + 1)
        else:
            yield _usage(inner, inner_context)


def _usage(command, context) -> str:
    parameters = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [f"| {_names(parameter)} | {_cell(_help(parameter, context))} |" for parameter in parameters]
    return f"\n```text\n{usage}\n```\n\n| | |\n| --- | --- |\n" + "\n".join(rows) + "\n"


def _names(parameter) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return " ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _help(parameter, context) -> str:
    text = getattr(parameter, "help", None) or ""
    default = parameter.default
    shown = default is not None and default != () and not callable(default) and not isinstance(default, bool)
    return f"{text} [default: {default}]" if shown and text and "default" not in text else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _text(text: str | None) -> str:
    return (text or "").replace("\b", "").replace("\f", "").replace("<", "&lt;").strip()
