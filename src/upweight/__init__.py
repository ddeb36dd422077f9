"""Which training examples caused this prediction, and what would change without them?

>>> import upweight as uw
>>> from sklearn.datasets import load_iris
>>> from sklearn.linear_model import LogisticRegression
>>> x, y = load_iris(return_X_y=True)
>>> train, queries = uw.Examples(x[::2], y[::2]), uw.Examples(x[1::2], y[1::2])
>>> model = uw.explainable(LogisticRegression().fit(train.x, train.y), train)
>>> scores = uw.Influence().fit(model, train).attribute(queries)
>>> scores.values.shape
(75, 75)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upweight.applications.attack import Moves as Moves
    from upweight.applications.attack import attack as attack
    from upweight.applications.change import Change as Change
    from upweight.applications.course import follow as follow
    from upweight.applications.explain import explain as explain
    from upweight.applications.mislabeled import mislabeled as mislabeled
    from upweight.applications.patch import Patch as Patch
    from upweight.applications.patch import repair as repair
    from upweight.applications.perturb import perturb as perturb
    from upweight.applications.slices import Slicing as Slicing
    from upweight.applications.slices import slices as slices
    from upweight.applications.what_if import what_if as what_if
    from upweight.core.examples import Examples as Examples
    from upweight.core.measurement import Loss as Loss
    from upweight.core.measurement import Margin as Margin
    from upweight.core.measurement import Probability as Probability
    from upweight.core.objective import Objective as Objective
    from upweight.core.recipes import CG as CG
    from upweight.core.recipes import EKFAC as EKFAC
    from upweight.core.recipes import KFAC as KFAC
    from upweight.core.recipes import Arnoldi as Arnoldi
    from upweight.core.recipes import DataInf as DataInf
    from upweight.core.recipes import Diagonal as Diagonal
    from upweight.core.recipes import Direct as Direct
    from upweight.core.recipes import EmpiricalFisher as EmpiricalFisher
    from upweight.core.recipes import GaussNewton as GaussNewton
    from upweight.core.recipes import Hessian as Hessian
    from upweight.core.recipes import Identity as Identity
    from upweight.core.recipes import LiSSA as LiSSA
    from upweight.core.recipes import Nystrom as Nystrom
    from upweight.core.scores import Scores as Scores
    from upweight.core.scores import Unit as Unit
    from upweight.evaluate.brittleness import brittleness as brittleness
    from upweight.evaluate.ceiling import noise_ceiling as noise_ceiling
    from upweight.evaluate.check import Check as Check
    from upweight.evaluate.compare import compare as compare
    from upweight.evaluate.found import found_at as found_at
    from upweight.evaluate.found import plant as plant
    from upweight.evaluate.lds import lds as lds
    from upweight.evaluate.loo import loo as loo
    from upweight.evaluate.removal_curve import removal_curve as removal_curve
    from upweight.evaluate.removals import singles as singles
    from upweight.evaluate.removals import subsets as subsets
    from upweight.evaluate.retrain_truth import retrain_truth as retrain_truth
    from upweight.evaluate.truth import Truth as Truth
    from upweight.evaluate.tuning import tune_damping as tune_damping
    from upweight.evaluate.verify import verify as verify
    from upweight.methods.boostin import BoostIn as BoostIn
    from upweight.methods.chance import Chance as Chance
    from upweight.methods.forest_weights import ForestWeights as ForestWeights
    from upweight.methods.gas import GAS as GAS
    from upweight.methods.gradcos import GradCos as GradCos
    from upweight.methods.graddot import GradDot as GradDot
    from upweight.methods.influence import Influence as Influence
    from upweight.methods.knn_shapley import KNNShapley as KNNShapley
    from upweight.methods.leaf_influence import LeafInfluence as LeafInfluence
    from upweight.methods.leaf_refit import LeafRefit as LeafRefit
    from upweight.methods.leave_one_out import LeaveOneOut as LeaveOneOut
    from upweight.methods.metagradient import Metagradient as Metagradient
    from upweight.methods.registry import methods as methods
    from upweight.methods.relatif import RelatIF as RelatIF
    from upweight.methods.source import SOURCE as SOURCE
    from upweight.methods.tracin import TracIn as TracIn
    from upweight.methods.tree_sim import TreeSim as TreeSim
    from upweight.methods.trex import TREX as TREX
    from upweight.models.frozen import FrozenFeatures as FrozenFeatures
    from upweight.models.pytorch import TorchModel as TorchModel
    from upweight.models.registry import explainable as explainable
    from upweight.report.evaluation import write_evaluation as write_evaluation
    from upweight.report.page import write_report as write_report
    from upweight.report.write import write_page as write_page
    from upweight.retraining.retrain import Retrained as Retrained
    from upweight.retraining.retrain import retrain as retrain
    from upweight.retraining.retraining import Retraining as Retraining
    from upweight.training.recipe import Training as Training
    from upweight.training.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

# Looked up on first use: `upweight --help` and a script that only loads scores need no scipy and no scikit-learn.
_HOME = {
    "attack": "upweight.applications.attack",
    "Moves": "upweight.applications.attack",
    "Change": "upweight.applications.change",
    "explain": "upweight.applications.explain",
    "mislabeled": "upweight.applications.mislabeled",
    "Patch": "upweight.applications.patch",
    "repair": "upweight.applications.patch",
    "perturb": "upweight.applications.perturb",
    "slices": "upweight.applications.slices",
    "Slicing": "upweight.applications.slices",
    "what_if": "upweight.applications.what_if",
    "Examples": "upweight.core.examples",
    "follow": "upweight.applications.course",
    "Objective": "upweight.core.objective",
    "Scores": "upweight.core.scores",
    "Unit": "upweight.core.scores",
    "Check": "upweight.evaluate.check",
    "Truth": "upweight.evaluate.truth",
    "brittleness": "upweight.evaluate.brittleness",
    "compare": "upweight.evaluate.compare",
    "found_at": "upweight.evaluate.found",
    "lds": "upweight.evaluate.lds",
    "loo": "upweight.evaluate.loo",
    "noise_ceiling": "upweight.evaluate.ceiling",
    "plant": "upweight.evaluate.found",
    "removal_curve": "upweight.evaluate.removal_curve",
    "retrain_truth": "upweight.evaluate.retrain_truth",
    "singles": "upweight.evaluate.removals",
    "subsets": "upweight.evaluate.removals",
    "tune_damping": "upweight.evaluate.tuning",
    "verify": "upweight.evaluate.verify",
    "Retrained": "upweight.retraining.retrain",
    "retrain": "upweight.retraining.retrain",
    "Retraining": "upweight.retraining.retraining",
    "GAS": "upweight.methods.gas",
    "GradCos": "upweight.methods.gradcos",
    "GradDot": "upweight.methods.graddot",
    "Loss": "upweight.core.measurement",
    "Margin": "upweight.core.measurement",
    "Probability": "upweight.core.measurement",
    "methods": "upweight.methods",
    "Chance": "upweight.methods.chance",
    "BoostIn": "upweight.methods.boostin",
    "ForestWeights": "upweight.methods.forest_weights",
    "LeafInfluence": "upweight.methods.leaf_influence",
    "LeafRefit": "upweight.methods.leaf_refit",
    "TreeSim": "upweight.methods.tree_sim",
    "TREX": "upweight.methods.trex",
    "Influence": "upweight.methods.influence",
    "LeaveOneOut": "upweight.methods.leave_one_out",
    "RelatIF": "upweight.methods.relatif",
    "SOURCE": "upweight.methods.source",
    "TracIn": "upweight.methods.tracin",
    "Trajectory": "upweight.training.trajectory",
    "KNNShapley": "upweight.methods.knn_shapley",
    "Metagradient": "upweight.methods.metagradient",
    "TorchModel": "upweight.models.pytorch",
    "explainable": "upweight.models.registry",
    "write_evaluation": "upweight.report.evaluation",
    "FrozenFeatures": "upweight.models.frozen",
    "write_page": "upweight.report.write",
    "write_report": "upweight.report.page",
    "Training": "upweight.training.recipe",
    **dict.fromkeys(
        (
            "Arnoldi",
            "CG",
            "DataInf",
            "Diagonal",
            "Direct",
            "EKFAC",
            "EmpiricalFisher",
            "GaussNewton",
            "Hessian",
            "Identity",
            "KFAC",
            "LiSSA",
            "Nystrom",
        ),
        "upweight.core.recipes",
    ),
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'upweight' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    value = home if name == "methods" else getattr(home, name)  # the room of methods is itself what lists them
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
