"""The methods there are."""

from __future__ import annotations

from upweight.core.attributor import Attributor
from upweight.methods.boostin import BoostIn
from upweight.methods.chance import Chance
from upweight.methods.forest_weights import ForestWeights
from upweight.methods.influence import Influence
from upweight.methods.leaf_influence import LeafInfluence
from upweight.methods.leaf_refit import LeafRefit
from upweight.methods.leave_one_out import LeaveOneOut
from upweight.methods.tree_sim import TreeSim
from upweight.methods.trex import TREX


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method, in the order of what to try first."""
    return {
        "influence": Influence,
        "leaf_refit": LeafRefit,
        "boostin": BoostIn,
        "leaf_influence": LeafInfluence,
        "trex": TREX,
        "tree_sim": TreeSim,
        "forest_weights": ForestWeights,
        "leave_one_out": LeaveOneOut,
        "chance": Chance,
    }
