"""The training objective of logistic and softmax regression, as the objective of the last step of a model."""

from __future__ import annotations

from upweight.core.head_objective import HeadObjective
from upweight.linear.losses.binary import LogisticLoss
from upweight.linear.losses.softmax import SoftmaxLoss
from upweight.linear.problem import Problem


def head_objective(problem: Problem) -> HeadObjective | None:
    """The objective of a logistic or softmax regression with l2 and no penalty on the intercept; else None."""
    is_binary = isinstance(problem.family, LogisticLoss) and problem.family.outputs == 1
    is_ridge = problem.ridge > 0 and not problem.has_l1 and not problem.features.penalised_intercept
    if not is_ridge or not (is_binary or isinstance(problem.family, SoftmaxLoss)):
        return None
    l2 = (2.0 if is_binary else 1.0) * problem.ridge / float(problem.weights.sum())
    return HeadObjective(problem.weights, l2, problem.features.intercept != 0)
