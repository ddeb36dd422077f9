"""Scores and examples become one self-contained HTML page."""

from upweight.report.page import write_report

__all__ = ["write_report"]
