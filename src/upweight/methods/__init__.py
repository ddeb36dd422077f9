"""One file per attribution method. The package can be called, `upweight.methods()`, to list them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


class Methods(ModuleType):
    """This module, made callable: importing it shadows a function `upweight.methods` of the same name."""

    def __call__(self) -> dict[str, type[Attributor]]:
        """Name → recipe class of every method, including installed plugins."""
        from upweight.methods.registry import methods

        return methods()


sys.modules[__name__].__class__ = Methods
methods = cast(Methods, sys.modules[__name__])  # exported as `upweight.methods`
