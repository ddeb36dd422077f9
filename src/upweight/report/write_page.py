"""write_page: the page of any use, by what it answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from upweight.applications.attack import Attack
from upweight.applications.mislabeled import Suspects
from upweight.applications.perturb import Perturbation
from upweight.applications.slices import Slices
from upweight.applications.what_if import WhatIf
from upweight.report.application_pages import attack_page, perturb_page, slices_page, what_if_page
from upweight.report.document import written
from upweight.report.review import review_page

PAGES: dict[type, Callable[[Any], str]] = {
    Suspects: review_page,
    Slices: slices_page,
    Perturbation: perturb_page,
    Attack: attack_page,
    WhatIf: what_if_page,
}


def write_page(path: str | Path, found: Any) -> Path:
    """Write what `mislabeled`, `slices`, `perturb`, `attack` or `what_if` found as one self-contained HTML page.

    The page holds everything it shows and works from `file://`. For `mislabeled` it is the review, on which a person
    decides with the keyboard. An existing file is replaced in one step or not at all.

    Raises:
        TypeError: anything else; scores go to `write_report`.
    """
    page = PAGES.get(type(found))
    if page is None:
        raise TypeError(
            f"expected what mislabeled, slices, perturb, attack or what_if gave, got {type(found).__name__}; scores "
            "go to write_report"
        )
    return written(Path(path), page(found))
