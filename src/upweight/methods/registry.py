"""The methods there are."""

from __future__ import annotations

from upweight.core.attributor import Attributor
from upweight.methods.chance import Chance
from upweight.methods.influence import Influence
from upweight.methods.leave_one_out import LeaveOneOut


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method, in the order of what to try first."""
    return {"influence": Influence, "leave_one_out": LeaveOneOut, "chance": Chance}
