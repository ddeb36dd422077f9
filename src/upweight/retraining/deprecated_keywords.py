"""Older keywords of the functions that train, which are fields of `Retraining` today."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from upweight.core.deprecation import BuiltBy, ReplacedBy
from upweight.core.progress import adapt_old_progress, rename_stages
from upweight.retraining.retraining import Retraining

KEYWORDS = {name: ReplacedBy("retraining", name) for name in ("processes", "how", "folder", "seeds")} | {
    "progress": ReplacedBy("retraining", "progress", adapt_old_progress)
}


def keywords(*names: str) -> dict[str, ReplacedBy]:
    """A selection of the older keywords `processes`, `how`, `folder`, `seeds` and `progress`."""
    return {name: KEYWORDS[name] for name in names}


def one_seed() -> dict[str, ReplacedBy]:
    """The older `seed=3`, today `seeds=[3]`."""
    return {"seed": ReplacedBy("retraining", "seeds", lambda seed: (seed,), "[…]")}


def stages(**older: str) -> dict[str, ReplacedBy]:
    """The older `progress` of applications, which used other names for some stages: today's name → older name."""
    return {"progress": ReplacedBy("retraining", "progress", partial(rename_stages, older))}


def retraining_builder(default: Retraining | None = None) -> dict[str, BuiltBy]:
    """How older keywords become a `Retraining`: they replace fields of the one passed, or of the function's default."""

    def make(current: Retraining | None, **fields: Any) -> Retraining:
        return replace(current or default or Retraining(), **fields)

    one_by_one = default is not None and default.processes == 1
    return {"retraining": BuiltBy("uw.Retraining", make, "processes=1" if one_by_one else "")}
