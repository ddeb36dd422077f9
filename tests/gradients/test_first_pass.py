"""What the first passes of a process cost beyond themselves."""

from __future__ import annotations

import sys

import pytest

import upweight as uw
from support.stored_nets import QUERIES, TRAIN, model, relative_error


@pytest.mark.parametrize("curvature", [uw.EKFAC(), uw.KFAC(), uw.Diagonal()], ids=lambda c: type(c).__name__)
def test_torch_need_not_import_sympy_for_a_fit_and_the_scores_are_the_same(curvature, monkeypatch):
    recipe, shapes = uw.Influence(curvature=curvature), "torch.fx.experimental.symbolic_shapes"
    __import__(shapes)  # as after other work of torch
    expected = recipe.fit(model(), TRAIN).attribute(QUERIES).values
    monkeypatch.setitem(sys.modules, shapes, None)  # an import fails
    values = recipe.fit(model(), TRAIN).attribute(QUERIES).values
    assert relative_error(values, expected) < 1e-12
