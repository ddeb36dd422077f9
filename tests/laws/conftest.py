"""Marks as slow the law of weights on large nets whose trainings are replayed backwards for every example."""

from __future__ import annotations

import pytest

from upweight.testing import Law

LONG = (
    "trained transformer",
    "recorded transformer",
)  # half the time of that law; an MLP tests the same code


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        if values and values.get("law") is Law.WEIGHTS and "case" in values and values["case"].family.name in LONG:
            item.add_marker(pytest.mark.slow)
