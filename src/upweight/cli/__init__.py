"""The command line: strings become objects here and nowhere else. Nothing heavy is imported before it is needed."""

from upweight.cli import application_commands, demo, evaluate, explain, methods, mislabeled, verify
from upweight.cli.app import app, main

__all__ = ["app", "application_commands", "demo", "evaluate", "explain", "main", "methods", "mislabeled", "verify"]
