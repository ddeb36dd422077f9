"""The command line: strings become objects here and nowhere else. Nothing heavy is imported before it is needed."""

from upweight.cli import demo, evaluate, explain, methods, mislabeled, uses, verify
from upweight.cli.app import app, main

__all__ = ["app", "demo", "evaluate", "explain", "main", "methods", "mislabeled", "uses", "verify"]
