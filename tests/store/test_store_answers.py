"""Answers from a store are those without it, up to what its encoding leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.network_families import Transformer, cnn, mlp  # noqa: E402
from support.stored_nets import QUERIES, TRAIN, model, relative_error, store  # noqa: E402
from upweight.gradients import captured_rows  # noqa: E402
from upweight.testing.networks import margin  # noqa: E402

WHOLE = uw.LowRank(rank=100, precision="float32")
FACTORED = [uw.Influence(curvature=uw.KFAC()), uw.Influence(curvature=uw.EKFAC(), damping=0.01), uw.Influence()]
PLAIN = [uw.GradDot(), uw.GradCos(), uw.RelatIF(curvature=uw.EKFAC()), uw.Influence(curvature=uw.Identity())]


def answers(recipe, folder, encoding, made=None, train=TRAIN):
    made = model() if made is None else made
    return recipe.fit(made, train, store=store(folder, encoding)).attribute(QUERIES)


@pytest.mark.parametrize("make", [mlp, cnn, Transformer])
def test_all_directions_in_single_precision_give_the_scores_without_a_store(make, tmp_path):
    made = model(make)
    for recipe in [*FACTORED[:2], *PLAIN]:
        expected = recipe.fit(made, TRAIN).attribute(QUERIES)
        scores = answers(recipe, tmp_path, WHOLE, made)
        assert relative_error(scores.values, expected.values) <= 1e-6
        assert scores.unit is uw.Unit.RANK and scores.diagnostics.get("coverage", 1.0) == 1.0
        fitted = recipe.fit(made, TRAIN, store=store(tmp_path))
        own = recipe.fit(made, TRAIN).self_influence().values
        assert relative_error(fitted.self_influence().values, own) <= 1e-5


@pytest.mark.parametrize(
    ("encoding", "least"),
    [
        (uw.Coordinates(precision="int8"), 0.999),
        (uw.Coordinates(), 0.99),
        (uw.LoGra(), 0.98),
        (uw.SJLT(count=256), 0.85),
        (uw.LowRank(), 0.9999),
        (uw.LowRank(precision="float16"), 0.9999),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_encoding_keeps_most_of_the_scores(encoding, least, tmp_path):
    for recipe in (FACTORED[0], PLAIN[0]):
        expected = recipe.fit(model(), TRAIN).attribute(QUERIES).values
        scores = answers(recipe, tmp_path, encoding).values
        assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] >= least


def test_layers_with_several_positions_have_their_own_default(tmp_path):
    assert store(tmp_path / "mlp").header(model(), TRAIN).encoding == uw.Coordinates()
    made = model(cnn)
    assert store(tmp_path / "cnn").header(made, TRAIN).encoding == uw.LowRank(rank=6, precision="int8")
    expected = uw.GradCos().fit(made, TRAIN).attribute(QUERIES).values
    scores = answers(uw.GradCos(), tmp_path / "cnn", None, made).values
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] >= 0.999


def test_the_default_curvature_of_a_store_is_ek_fac_and_says_so(tmp_path):
    scores = answers(uw.Influence(), tmp_path, WHOLE)
    expected = uw.Influence(curvature=uw.EKFAC()).fit(model(), TRAIN).attribute(QUERIES)
    assert relative_error(scores.values, expected.values) <= 1e-6
    assert scores.diagnostics["curvature"] == expected.diagnostics["curvature"]


def test_damping_measurement_and_modules_are_chosen_when_asking(tmp_path):
    recipe = uw.Influence(curvature=uw.KFAC(), damping=0.3)
    store(tmp_path, WHOLE).build(model(), TRAIN)
    measured = uw.TorchModel(model().network.net, model().network.loss, margin)
    expected = recipe.fit(measured, TRAIN).attribute(QUERIES).values
    assert relative_error(answers(recipe, tmp_path, None, measured).values, expected) <= 1e-6
    last = uw.GradDot().fit(measured, TRAIN, store=uw.Store(tmp_path, modules="2")).attribute(QUERIES)
    assert relative_error(last.values, uw.GradDot(modules="2").fit(measured, TRAIN).attribute(QUERIES).values) <= 1e-6
    assert any("2 parameters of the layers that were asked" in text for text in last.diagnostics["warnings"])
    with pytest.raises(ValueError, match="7"):
        uw.GradDot().fit(measured, TRAIN, store=uw.Store(tmp_path, modules="7"))


@pytest.mark.parametrize("measure", [None, margin])
def test_a_question_is_measured_and_predicted_in_the_pass_for_its_gradients(measure, tmp_path):
    made = uw.TorchModel(model().network.net, model().network.loss, measure)
    fitted = FACTORED[0].fit(made, TRAIN, store=store(tmp_path, WHOLE))
    fitted.attribute(QUERIES)  # compares captured gradients with autograd once
    calls = []
    handle = made.network.net.register_forward_hook(lambda *_: calls.append(1))
    scores = fitted.attribute(QUERIES)
    handle.remove()
    assert len(calls) == (1 if measure is None else 3)
    np.testing.assert_allclose(scores.measured, made.measure(QUERIES), rtol=1e-6)
    assert scores.predictions.predicted == made.predict(QUERIES).predicted
    limited = FACTORED[0].fit(made, TRAIN, store=uw.Store(tmp_path, memory=60_000))
    assert limited.model.max_queries < len(QUERIES)
    np.testing.assert_allclose(limited.attribute(QUERIES).values, scores.values, rtol=1e-5, atol=1e-7)


def test_weights_and_the_share_of_the_regulariser_are_those_without_a_store(tmp_path):
    weights = np.where(np.arange(60) % 5 == 0, 0.0, 1.0 + np.arange(60) % 3)
    train, made = TRAIN.replaced(weights=weights), model(objective=uw.Objective("mean", l2=0.1))
    for recipe in (FACTORED[0], PLAIN[0], PLAIN[2]):
        expected = recipe.fit(made, train).attribute(QUERIES).values
        assert relative_error(answers(recipe, tmp_path, WHOLE, made, train).values, expected) <= 1e-6


@pytest.mark.parametrize("recipe", [FACTORED[0], PLAIN[2]], ids=["Influence", "RelatIF"])
def test_examples_of_weight_zero_do_not_count_for_the_damping(recipe, tmp_path):
    train = TRAIN.replaced(weights=np.arange(60) % 4)
    expected = recipe.fit(model(), train).attribute(QUERIES).values
    assert relative_error(answers(recipe, tmp_path, WHOLE, train=train).values, expected) <= 1e-6


def test_gradients_of_a_question_that_was_stopped_do_not_answer_for_changed_queries(tmp_path, monkeypatch):
    queries = uw.Examples(QUERIES.x.copy(), QUERIES.y, ids=QUERIES.ids)
    fitted = FACTORED[0].fit(model(), TRAIN, store=store(tmp_path, WHOLE))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(fitted), "departure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        fitted.attribute(queries)
    queries.x[:] = TRAIN.x[: len(queries)]
    expected = FACTORED[0].fit(model(), TRAIN).selected(queries, TRAIN.ids).values
    assert relative_error(fitted.selected(queries, TRAIN.ids).values, expected) <= 1e-6


@pytest.mark.parametrize("recipe", [uw.GradDot(modules="2"), uw.GradCos()], ids=["some modules", "norms"])
def test_a_question_about_some_modules_or_with_norms_takes_one_pass_as_well(recipe, tmp_path):
    made = model()
    fitted = recipe.fit(made, TRAIN, store=store(tmp_path, WHOLE))
    fitted.attribute(QUERIES)
    calls = []
    handle = made.network.net.register_forward_hook(lambda *_: calls.append(1))
    scores = fitted.attribute(QUERIES)
    handle.remove()
    assert len(calls) == 1
    assert relative_error(scores.values, recipe.fit(made, TRAIN).attribute(QUERIES).values) <= 1e-6


@pytest.mark.parametrize(
    "recipe",
    [
        uw.Influence(curvature=uw.GaussNewton(), damping=0.0, correction=None),
        uw.Influence(curvature=uw.EmpiricalFisher()),
        uw.Influence(curvature=uw.EKFAC()),
        uw.RelatIF(curvature=uw.Diagonal()),
        uw.GradCos(by="layer"),
    ],
    ids=lambda recipe: f"{type(recipe).__name__} {getattr(recipe, 'curvature', '')}"[:40],
)
def test_exact_factors_answer_for_every_curvature_in_its_own_unit(recipe, tmp_path):
    made = model(objective=uw.Objective("mean", l2=0.1))
    expected = recipe.fit(made, TRAIN).attribute(QUERIES)
    scores = answers(recipe, tmp_path, uw.ExactFactors(), made)
    assert relative_error(scores.values, expected.values) <= 1e-6
    assert scores.unit is expected.unit


def test_a_second_question_makes_no_pass_over_the_training_set(tmp_path, monkeypatch):
    store(tmp_path).build(model(), TRAIN)
    captured = []
    real = captured_rows.capture
    monkeypatch.setattr(
        captured_rows,
        "capture",
        lambda net, quantity, part, *more: captured.append(part) or real(net, quantity, part, *more),
    )
    fitted = FACTORED[0].fit(model(), TRAIN, store=uw.Store(tmp_path))
    fitted.attribute(QUERIES), fitted.top(QUERIES, 3)
    assert {i for part in captured for i in part.ids.tolist()} == set(QUERIES.ids.tolist())


def test_factors_of_a_sample_are_scaled_to_the_whole_training_set(tmp_path):
    sampled = uw.Store(tmp_path, WHOLE, factor_examples=40, shard_bytes=5000)
    recipe = uw.Influence(curvature=uw.KFAC(), damping=0.05)
    scores = recipe.fit(model(), TRAIN, store=sampled).attribute(QUERIES).values
    expected = recipe.fit(model(), TRAIN).attribute(QUERIES).values
    slope = (scores * expected).sum() / (expected**2).sum()
    assert 0.8 < slope < 1.25 and np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.95


def test_parameters_that_are_left_out_are_said(tmp_path):
    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(3000, 12), torch.nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.table((x * 100).long().clamp(0, 2999)).mean(1))

    made = model(Bag)
    plan = store(tmp_path).plan(made, TRAIN)
    assert plan.left_out == ("table.weight",) and plan.coverage == pytest.approx(39 / 36039)
    warnings = answers(uw.GradDot(), tmp_path, None, made).diagnostics["warnings"]
    assert any("table.weight" in text and "left out" in text for text in warnings)


def test_small_embeddings_are_kept_like_layers(tmp_path):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(400, 12), torch.nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.table((x * 100).long().clamp(0, 399)).mean(1))

    made, encoding = model(Tokens), uw.LowRank(rank=12, precision="float32")
    assert store(tmp_path, encoding).plan(made, TRAIN).coverage == 1.0
    for recipe in FACTORED[:2]:
        expected = recipe.fit(made, TRAIN).attribute(QUERIES).values
        assert relative_error(answers(recipe, tmp_path, encoding, made).values, expected) <= 1e-6


def test_layers_with_several_positions_have_no_exact_factors(tmp_path):
    with pytest.raises(ValueError, match=r"the layer of '1.weight': .*got 9 positions; use LowRank"):
        answers(uw.GradDot(), tmp_path, uw.ExactFactors(), model(cnn))


def test_a_fit_that_reads_from_a_store_does_not_load_without_it(tmp_path):
    recipe = FACTORED[0]
    recipe.fit(model(), TRAIN, store=store(tmp_path / "store")).save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="made with other parameters"):
        recipe.load(tmp_path / "fit.npz", model(), TRAIN)


def test_groups_are_summed_in_the_pass_that_finds_the_strongest(tmp_path):
    fitted = uw.Influence(curvature=uw.KFAC()).fit(model(), TRAIN, store=store(tmp_path))
    fitted.top_query_block = 4
    groups = np.array(["even", "odd", "third"])[np.arange(60) % 3]
    top, scores = fitted.top(QUERIES, 5, by=groups), fitted.attribute(QUERIES)
    expected = scores.group(groups)
    np.testing.assert_allclose(top.groups.values, expected.values, rtol=1e-5, atol=1e-6 * abs(expected.values).max())
    assert top.groups.train_ids.tolist() == ["even", "odd", "third"] and top.groups.unit == scores.unit
    assert [a.id for a in top.proponents("q1")] == [a.id for a in scores.proponents("q1", 5)]
    by_id = dict(zip(TRAIN.ids.tolist(), groups, strict=True))
    np.testing.assert_array_equal(fitted.top(QUERIES, 5, by=by_id).groups.values, top.groups.values)
    assert fitted.top(QUERIES, 5).groups is None
    with pytest.raises(ValueError, match="one entry per example"):
        fitted.top(QUERIES, 5, by=groups[:-1])


def test_memory_bounds_the_examples_of_a_pass_and_the_queries_of_a_question(tmp_path, monkeypatch):
    recipe, wide = uw.Influence(curvature=uw.KFAC()), {"encoding": uw.Coordinates(precision="float32")}
    plain = recipe.fit(model(), TRAIN, store=store(tmp_path / "plain", **wide)).top(QUERIES, 5)
    small = uw.Store(tmp_path / "small", memory=20_000, **wide)
    header = small.header(model(), TRAIN)
    floats = sum(layout.left + layout.right for layout in header.layouts.values())
    assert header.batch < 60 and header.batch * 3 * 4 * floats <= 20_000
    assert header.rows_per_shard * header.bytes_per_row <= 20_000
    fitted = recipe.fit(model(), TRAIN, store=small)
    assert 1 <= fitted.model.max_queries < len(QUERIES)
    top = fitted.top(QUERIES, 5)
    np.testing.assert_allclose(top.values, plain.values, rtol=1e-5, atol=1e-6 * abs(plain.values).max())
    assert recipe.fit(model(), TRAIN, store=uw.Store(tmp_path / "small")).model.max_queries is None
    with pytest.raises(ValueError, match=r"the gradient of one example takes about .* memory=100 has no room"):
        recipe.fit(model(), TRAIN, store=uw.Store(tmp_path / "none", memory=100))


@pytest.mark.parametrize("modules", ["0", "2", "0.bias", "0.weight", ["0.bias", "2"], "*.weight"], ids=str)
@pytest.mark.parametrize("recipe", [uw.GradDot(), FACTORED[1], uw.Influence(curvature=uw.EmpiricalFisher())], ids=str)
def test_exact_factors_answer_for_any_modules_that_are_chosen_when_asking(recipe, modules, tmp_path):
    made, chosen = model(), replace(recipe, modules=modules)
    expected = chosen.fit(made, TRAIN).attribute(QUERIES).values
    assert relative_error(answers(chosen, tmp_path, uw.ExactFactors(), made).values, expected) <= 1e-6
    scores = recipe.fit(made, TRAIN, store=uw.Store(tmp_path, modules=modules)).attribute(QUERIES)
    assert relative_error(scores.values, expected) <= 1e-6
