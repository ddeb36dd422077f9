"""Forecasts of networks: every curvature has one, for its own form, and a fit says it without changing its scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.network_families import cnn, cross_entropy, digits, mlp  # noqa: E402
from upweight.core import forecast  # noqa: E402
from upweight.core.announced_fit import curvature_of  # noqa: E402
from upweight.curvature.forecast import _steps, forecast_answer, forecast_fit, forecast_pairs  # noqa: E402
from upweight.curvature.gauss_newton import FittedGaussNewton  # noqa: E402
from upweight.curvature.limits import Limits  # noqa: E402
from upweight.curvature.pilot import Pilot  # noqa: E402
from upweight.curvature.price import counted_flops  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402
from upweight.curvature.timed_steps import seconds_per_example  # noqa: E402
from upweight.gradients.capture import capture  # noqa: E402
from upweight.gradients.captured_batch import CapturedBatch  # noqa: E402

X, Y = digits()
TRAIN, QUERIES = uw.Examples(X[:100], Y[:100]), uw.Examples(X[100:104], Y[100:104])
RECIPES = [
    uw.Identity(), uw.Diagonal(), uw.EmpiricalFisher(), uw.DataInf(), uw.KFAC(), uw.EKFAC(), uw.GaussNewton(),
    uw.GaussNewton(solver=uw.CG()), uw.Hessian(), uw.Hessian(solver=uw.LiSSA()), uw.Hessian(solver=uw.Arnoldi()), None,
]  # fmt: skip


def model(make=mlp):
    torch.manual_seed(0)
    return uw.TorchModel(make().double(), cross_entropy)


@pytest.fixture(scope="module")
def pilot():
    return Pilot(SummedObjective.of(model().network, TRAIN, np.ones(100), 0.0))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_curvature_has_a_forecast(recipe, pilot):
    fit, answer = forecast_fit(pilot, recipe), forecast_answer(pilot, recipe, 4)
    has_fit = recipe != uw.Identity() and not isinstance(getattr(recipe, "solver", None), uw.LiSSA)
    assert np.isfinite(fit.seconds) and (fit.seconds > 0) == has_fit
    assert 0 < answer.seconds < np.inf and answer.bytes >= 8 * 4 * 100
    assert forecast_answer(pilot, recipe, 400).seconds > answer.seconds


def test_convolutions_have_one_too():
    pilot = Pilot(SummedObjective.of(model(cnn).network, TRAIN, np.ones(100), 0.0))
    assert forecast_fit(pilot, uw.EKFAC()).parts.keys() == {"factors", "eigenvectors", "second moments"}
    assert pilot.multiplications > model(cnn).network.size  # weights are used at several positions


@pytest.mark.parametrize("recipe", [uw.Influence(), uw.Influence(curvature=uw.WithinBudget(passes=500))], ids=str)
def test_the_forecast_of_the_default_is_that_of_the_curvature_that_is_chosen(recipe, monkeypatch):
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SMALL_WORK", 0)
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SHORT_FLOPS", 0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 60), torch.nn.Tanh(), torch.nn.Linear(60, 10))
    wide = uw.TorchModel(net.double(), cross_entropy)
    assert recipe.fit(wide, TRAIN).diagnostics["curvature_choice"].startswith("EKFAC()")
    assert wide.forecast(recipe, TRAIN).parts.keys() == {"factors", "eigenvectors", "second moments"}
    assert wide.forecast(recipe, TRAIN, queries=4).parts["solving for queries"] == 0.0


def test_work_of_few_counted_flops_has_no_pilot(monkeypatch):
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SMALL_WORK", 0)
    pilots = []
    plain = Pilot.__init__
    monkeypatch.setattr(
        Pilot, "__init__", lambda self, *given, **named: pilots.append(self) or plain(self, *given, **named)
    )
    short = model()
    for recipe in (uw.EKFAC(), uw.KFAC(), uw.Diagonal(), uw.EmpiricalFisher()):
        assert uw.RelatIF(curvature=recipe).fit(short, TRAIN).attribute(QUERIES) and not pilots
    flops = counted_flops(SummedObjective.of(short.network, TRAIN, np.ones(100), 0.0), uw.EKFAC(), 0)
    assert 6 * 100 * short.network.size < flops < 1e9
    for limit, count in ((flops * 1.01, 0), (flops * 0.99, 1)):
        monkeypatch.setattr("upweight.models.pytorch.forecast_network.SHORT_FLOPS", limit)
        short.forecast(uw.Influence(curvature=uw.EKFAC()), TRAIN)
        assert len(pilots) == count
    assert short.forecast(uw.Influence(curvature=uw.Hessian()), TRAIN) is not None and len(pilots) == 2


def test_a_pilot_looks_at_one_example_in_two_hundred_and_at_more_if_that_is_fast(monkeypatch):
    many = uw.Examples(np.tile(X[:100], (10, 1)), np.tile(Y[:100], 10))
    for fast, counts in ((-1.0, (8, 8)), (np.inf, (100, 512))):
        monkeypatch.setattr("upweight.curvature.pilot.FAST_SECONDS", fast)
        for examples, count in zip((TRAIN, many), counts, strict=True):
            assert Pilot(SummedObjective.of(model().network, examples, np.ones(len(examples)), 0.0)).count == count


@pytest.mark.parametrize(("overhead", "each"), [(0.0, 0.001), (0.02, 0.0001), (0.02, 0.01), (0.001, 0.1)])
def test_seconds_of_an_example_are_those_of_large_batches_after_few_examples_of_slow_steps(overhead, each):
    seen = [0]

    def work(count):
        seen[0] += count
        return overhead + each * count

    found = seconds_per_example(work, lambda call, is_warm: call(), (40, 160, 512), is_warm=False)
    assert np.isclose(found, each + overhead / 512, rtol=0.1)
    assert seen[0] <= (80 if each * 160 > 0.5 else 180)


def test_what_a_pilot_prepared_for_its_time_is_what_it_multiplies(monkeypatch):
    monkeypatch.setattr("upweight.curvature.pilot.FAST_SECONDS", -1.0)
    pilot = Pilot(SummedObjective.of(model().network, TRAIN, np.ones(100), 0.0))
    captured = list[int]()
    monkeypatch.setattr(
        "upweight.curvature.pilot.capture", lambda *given: captured.append(len(given[2])) or capture(*given)
    )
    assert pilot.ready > 0 and set(captured) == {1, 8}
    captured.clear()
    assert pilot.pair > 0 and not captured
    whole = model().loss_rows(TRAIN.take(range(8))).gram()
    assert np.allclose(pilot.batch.gram().numpy(), whole)


@pytest.mark.parametrize("recipe", [uw.Influence(), uw.RelatIF(curvature=uw.EKFAC()), uw.GradDot()], ids=str)
def test_a_fit_that_is_forecast_gives_the_same_scores(recipe, monkeypatch, capsys):
    plain = recipe.fit(model(), TRAIN).attribute(QUERIES).values
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SMALL_WORK", 0)
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SHORT_FLOPS", 0)
    monkeypatch.setattr(forecast, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(forecast.Forecast, "seconds", 60.0)
    fitted = recipe.fit(model(), TRAIN)
    np.testing.assert_array_equal(fitted.attribute(QUERIES).values, plain)
    err = capsys.readouterr().err
    assert f"{type(recipe).__name__}.fit on 100 training examples: about 60 s" in err and ", 4 queries: about" in err


def test_steps_of_conjugate_gradients_are_counted_with_the_shift_of_the_fit(monkeypatch):
    monkeypatch.setattr("upweight.curvature.pilot.FAST_SECONDS", np.inf)
    hessian, convex = uw.Hessian(solver=uw.CG(tolerance=1e-6)), model(lambda: torch.nn.Linear(64, 10))
    fitted = uw.Influence(curvature=hessian, damping=1e-3).fit(convex, TRAIN)
    curvature = curvature_of(fitted)
    assert curvature.shift == pytest.approx(1e-3 * 100)
    summed = SummedObjective.of(convex.network, TRAIN, np.ones(100), 0.0)
    counted = Pilot(summed, fitted=curvature).steps(hessian.solver, 10**5)
    larger = uw.Influence(curvature=hessian, damping=1e2).fit(convex, TRAIN).curvature
    large = Pilot(summed, fitted=larger).steps(hessian.solver, 10**5)
    taken = fitted.curvature.solve(convex.loss_rows(TRAIN.take(range(2)))).steps
    assert large < 5 < taken / 2 <= counted <= taken + 1
    assert Pilot(summed, fitted=curvature).steps(hessian.solver, 1) is None  # more than a hundredth of one query


@pytest.mark.parametrize("damping", [1e-2, 1e-1, 10.0])
def test_steps_with_a_sketch_are_foreseen_from_what_it_leaves(damping):
    net = model(lambda: torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.Tanh(), torch.nn.Linear(20, 10)))
    recipe = uw.GaussNewton(solver=uw.CG(tolerance=1e-6, steps=400))
    limits = Limits(sketch_rank=40)
    summed = SummedObjective(net.network, TRAIN, np.ones(100), 0.0, damping * 100, limits=limits)
    curvature = FittedGaussNewton(summed, recipe, "")
    pilot = Pilot(summed, fitted=curvature)
    foreseen, taken = _steps(pilot, recipe, 4), curvature.solve(net.loss_rows(QUERIES)).steps
    assert taken / 2 <= foreseen <= 2 * taken + 2


def test_what_a_fit_measured_is_not_measured_again_for_its_answers():
    summed = SummedObjective.of(model().network, TRAIN, np.ones(100), 0.0)
    first, calls = Pilot(summed), []
    expected = forecast_answer(first, uw.Identity(), 4)
    second = Pilot(summed, lambda: calls.append(0) or 0.0)
    assert forecast_answer(second, uw.Identity(), 4) == expected and calls == []
    assert Pilot(SummedObjective.of(model().network, TRAIN, np.ones(100), 0.0)).rates.keys() == {"count"}


def test_gradients_that_are_divided_by_their_norms_take_the_memory_of_double_precision(monkeypatch):
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SMALL_WORK", 0)
    examples = uw.Examples(X[:100].astype("float32"), Y[:100])
    single = uw.TorchModel(mlp(), cross_entropy)
    cosines, products = single.forecast(uw.GradCos(), examples, 4), single.forecast(uw.GradDot(), examples, 4)
    results = 8 * 4 * 100
    assert cosines.bytes - results == pytest.approx(2 * (products.bytes - results))


def test_answers_are_priced_in_the_form_that_the_fit_took(monkeypatch):
    net = model(lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)))
    summed = SummedObjective.of(net.network, TRAIN, np.ones(100), 0.0)
    curvature = uw.Influence(curvature=uw.GaussNewton()).fit(net, TRAIN).curvature
    pilot = Pilot(summed, fitted=curvature)
    assert pilot.roots == len(curvature.inverse.roots) / 100 and pilot.form(uw.GaussNewton()) == "dual"
    by_steps = uw.Influence(curvature=uw.GaussNewton(solver=uw.CG())).fit(net, TRAIN).curvature
    assert Pilot(summed, fitted=by_steps).roots == np.inf


def test_solving_for_the_training_set_is_of_each_example_with_itself(pilot):
    for recipe in (uw.EKFAC(), uw.Diagonal(), uw.Hessian(solver=uw.CG())):
        pairs, matrix = forecast_pairs(pilot, recipe), forecast_answer(pilot, recipe, 100)
        assert 0 < pairs.seconds < np.inf and pairs.bytes < matrix.bytes


def test_source_has_no_forecast_by_solves(monkeypatch):
    monkeypatch.setattr("upweight.models.pytorch.forecast_network.SMALL_WORK", 0)
    monkeypatch.setattr(uw.TorchModel, "_forecast", lambda *given: forecast.Forecast({"passes": 1.0}))
    assert model().forecast(uw.SOURCE(), TRAIN, 4) is None and model().forecast(uw.TracIn(), TRAIN, 4) is not None


def test_gradients_that_are_held_are_in_the_memory_that_is_said(pilot):
    held = pilot.paired_bytes(100) - pilot.paired_bytes(1)
    assert 4 * 99 * pilot.batch.floats <= held <= 2 * 4 * 99 * pilot.batch.floats


def test_pairs_of_captured_gradients_are_timed_only_where_scores_are_of_pairs_and_few_if_they_are_large(monkeypatch):
    counts = []
    dot = CapturedBatch.dot
    monkeypatch.setattr(CapturedBatch, "dot", lambda self, other: counts.append(self.count) or dot(self, other))
    small = Pilot(SummedObjective.of(model().network, TRAIN, np.ones(100), 0.0))
    forecast_answer(small, uw.EKFAC(), 4)
    assert counts == []
    forecast_answer(small, uw.Identity(), 4)
    assert set(counts) == {128}
    small.inspection = replace(small.inspection, floats=1 << 20)
    del small.rates["pair"]
    assert small.pair > 0 and set(counts) == {128, 4}


def test_the_form_is_that_of_the_fit(pilot):
    assert pilot.form(None) == pilot.form(uw.GaussNewton()) == "direct"
    assert pilot.form(uw.GaussNewton(solver=uw.CG())) == pilot.form(uw.Hessian(solver=uw.LiSSA())) == "CG"
    large = uw.TorchModel(torch.nn.Sequential(torch.nn.Linear(64, 60), torch.nn.Linear(60, 10)), cross_entropy)
    examples = uw.Examples(X[:100].astype("float32"), Y[:100])
    wide = Pilot(SummedObjective.of(large.network, examples, np.ones(100), 0.0))
    assert wide.form(None) == "dual" and wide.form(uw.Hessian()) == "CG"
