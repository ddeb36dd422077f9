"""The methods there are."""

from __future__ import annotations

from typing import Any

from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.model import Averaged, TreeBased, can
from upweight.methods.boostin import BoostIn
from upweight.methods.chance import Chance
from upweight.methods.forest_weights import ForestWeights
from upweight.methods.gas import GAS
from upweight.methods.gradcos import GradCos
from upweight.methods.graddot import GradDot
from upweight.methods.influence import Influence
from upweight.methods.leaf_influence import LeafInfluence
from upweight.methods.leaf_refit import LeafRefit
from upweight.methods.leave_one_out import LeaveOneOut
from upweight.methods.metagradient import Metagradient
from upweight.methods.relatif import RelatIF
from upweight.methods.source import SOURCE
from upweight.methods.tracin import TracIn
from upweight.methods.tree_sim import TreeSim
from upweight.methods.trex import TREX

WITHIN_A_MINUTE = 4e9  # gradients: removals × examples × trees


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method, in the order of what to try first."""
    return {
        "influence": Influence,
        "metagradient": Metagradient,
        "leaf_refit": LeafRefit,
        "boostin": BoostIn,
        "leaf_influence": LeafInfluence,
        "forest_weights": ForestWeights,
        "leave_one_out": LeaveOneOut,
        "source": SOURCE,
        "tracin": TracIn,
        "gas": GAS,
        "relatif": RelatIF,
        "graddot": GradDot,
        "gradcos": GradCos,
        "trex": TREX,
        "tree_sim": TreeSim,
        "chance": Chance,
    }


def first_choice(model: Any, train: Examples) -> Attributor:
    """What to try first on this model: an effect where one can be had within a minute, else a ranking."""
    if not isinstance(model, TreeBased):
        return Influence()
    grown = model.grown(train)
    if can(model, Averaged):
        return ForestWeights() if grown.exact else TreeSim()
    work = len(train) ** 2 * model.trees().trees
    if not grown.exact:
        return BoostIn()
    return LeafRefit() if work <= WITHIN_A_MINUTE else LeafInfluence()
