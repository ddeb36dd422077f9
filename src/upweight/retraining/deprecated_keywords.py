"""Older keywords of the functions that train: what one `Retraining` says today."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from upweight.core.deprecation import Made, Older
from upweight.core.progress import counted, with_stages
from upweight.retraining.retraining import Retraining

KEYWORDS = {name: Older("retraining", name) for name in ("processes", "how", "folder", "seeds")} | {
    "progress": Older("retraining", "progress", counted)
}


def keywords(*names: str) -> dict[str, Older]:
    """These of the older keywords `processes`, `how`, `folder`, `seeds` and `progress`."""
    return {name: KEYWORDS[name] for name in names}


def one_seed() -> dict[str, Older]:
    """The older `seed=3`, today `seeds=[3]`."""
    return {"seed": Older("retraining", "seeds", lambda seed: (seed,), "[…]")}


def stages(**older: str) -> dict[str, Older]:
    """The older `progress` of applications, which was called with other names of some stages: today's → older."""
    return {"progress": Older("retraining", "progress", partial(with_stages, older))}


def made(default: Retraining | None = None) -> dict[str, Made]:
    """How older keywords become a `Retraining`: fields of the one passed, else of the function's default."""

    def make(current: Retraining | None, **fields: Any) -> Retraining:
        return replace(current or default or Retraining(), **fields)

    one_by_one = default is not None and default.processes == 1
    return {"retraining": Made("uw.Retraining", make, "processes=1" if one_by_one else "")}
