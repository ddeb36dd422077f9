"""One file per attributor; called, the room lists them: `upweight.methods()`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


class Methods(ModuleType):
    """Importing a room sets it as an attribute of the package, where the function of the same name would stand."""

    def __call__(self) -> dict[str, type[Attributor]]:
        """Name → recipe class of every method, installed plugins included."""
        from upweight.methods.registry import methods

        return methods()


sys.modules[__name__].__class__ = Methods
methods = cast(Methods, sys.modules[__name__])  # the name under which `upweight` offers the room
