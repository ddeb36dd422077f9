"""The methods that come with the package, in the order in which to try them.

To add a method, add one line. It becomes `upweight.Name`, and `upweight.methods()` lists it under the name of its file.
"""

# isort: off
# ruff: noqa: PLC0414 - the redundant alias tells type checkers that the name is exported
from upweight.methods.influence import Influence as Influence
from upweight.methods.less import LESS as LESS
from upweight.methods.metagradient import Metagradient as Metagradient
from upweight.methods.leaf_refit import LeafRefit as LeafRefit
from upweight.methods.boostin import BoostIn as BoostIn
from upweight.methods.leaf_influence import LeafInfluence as LeafInfluence
from upweight.methods.forest_weights import ForestWeights as ForestWeights
from upweight.methods.leave_one_out import LeaveOneOut as LeaveOneOut
from upweight.methods.shortlist_leave_one_out import ShortlistLeaveOneOut as ShortlistLeaveOneOut
from upweight.methods.datamodels import Datamodels as Datamodels
from upweight.methods.data_shapley import DataShapley as DataShapley
from upweight.methods.data_oob import DataOOB as DataOOB
from upweight.methods.weight_covariance import WeightCovariance as WeightCovariance
from upweight.methods.source import SOURCE as SOURCE
from upweight.methods.tracin import TracIn as TracIn
from upweight.methods.gas import GAS as GAS
from upweight.methods.relatif import RelatIF as RelatIF
from upweight.methods.graddot import GradDot as GradDot
from upweight.methods.gradcos import GradCos as GradCos
from upweight.methods.trex import TREX as TREX
from upweight.methods.trackstar import TrackStar as TrackStar
from upweight.methods.tree_sim import TreeSim as TreeSim
from upweight.methods.knn_shapley import KNNShapley as KNNShapley
from upweight.methods.rep_sim import RepSim as RepSim
from upweight.methods.bm25 import BM25 as BM25
from upweight.methods.representer_points import RepresenterPoints as RepresenterPoints
from upweight.methods.chance import Chance as Chance
