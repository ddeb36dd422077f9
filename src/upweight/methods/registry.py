"""The methods there are."""

from __future__ import annotations

from upweight.core.attributor import Attributor
from upweight.methods.chance import Chance
from upweight.methods.gas import GAS
from upweight.methods.gradcos import GradCos
from upweight.methods.graddot import GradDot
from upweight.methods.influence import Influence
from upweight.methods.leave_one_out import LeaveOneOut
from upweight.methods.metagradient import Metagradient
from upweight.methods.relatif import RelatIF
from upweight.methods.source import SOURCE
from upweight.methods.tracin import TracIn


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method, in the order of what to try first."""
    return {
        "influence": Influence,
        "metagradient": Metagradient,
        "leave_one_out": LeaveOneOut,
        "source": SOURCE,
        "tracin": TracIn,
        "gas": GAS,
        "relatif": RelatIF,
        "graddot": GradDot,
        "gradcos": GradCos,
        "chance": Chance,
    }
