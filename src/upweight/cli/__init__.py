"""The command line: strings become objects here and nowhere else. Nothing heavy is imported before it is needed."""

from upweight.cli import demo, explain, methods, mislabeled, uses
from upweight.cli.app import app, main

__all__ = ["app", "demo", "explain", "main", "methods", "mislabeled", "uses"]
