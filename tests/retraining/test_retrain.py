import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import upweight as uw
from support.dying_worker import QUERIES, TRAIN, Mortal, truth, weights
from support.logistic_fit import logistic_fit
from upweight.retraining import result_cache
from upweight.retraining.engine import retrain_without


def test_one_row_of_weights_gives_one_model_and_many_rows_give_many():
    model = Mortal(5.5)
    single = uw.retrain(model, TRAIN, weights()[2])
    assert single.parameters == pytest.approx(truth()[2])
    many = uw.retrain(model, TRAIN, weights(), retraining=uw.Retraining(processes=1))
    assert len(many) == 12 and np.allclose(many.parameters, truth())
    assert np.allclose(many.measure(QUERIES), truth().T + np.arange(3.0)[:, None])
    assert [m.parameters[0] for m in many] == many.parameters[:, 0].tolist() and many[2].parameters == single.parameters
    assert repr(many) == "Retrained(12 × Mortal)"


def test_one_seed_counts_for_all_rows_or_each_row_has_its_own():
    model = Mortal(5.5)
    assert np.allclose(
        uw.retrain(model, TRAIN, weights(), seed=2, retraining=uw.Retraining(processes=1)).parameters, truth() + 2
    )
    seeds = np.arange(12)
    retrained = uw.retrain(model, TRAIN, weights(), seed=seeds, retraining=uw.Retraining(processes=1))
    assert np.allclose(retrained.parameters[:, 0], truth()[:, 0] + seeds)
    with pytest.raises(ValueError, match="one seed each, got 12, 3"):
        uw.retrain(model, TRAIN, weights(), seed=[1, 2, 3])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(5), r"expected one weight per training example \(12,\), got shape \(5,\)"),
        (np.ones((2, 5)), r"expected one weight per training example \(2, 12\), got shape \(2, 5\)"),
        (np.zeros((2, 12)), "not all zero"),
        (np.vstack([np.ones(12), np.zeros(12)]), "not all zero"),
        (-np.ones(12), "≥ 0"),
        (np.full(12, np.nan), "finite"),
        (np.ones((0, 12)), "at least one model"),
    ],
)
def test_invalid_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        uw.retrain(Mortal(5.5), TRAIN, weights)


def test_unknown_ways_to_retrain_and_models_that_cannot_be_retrained_are_refused():
    with pytest.raises(ValueError, match="one of stacked, processes, ray or None, got 'threads'"):
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(how="threads"))
    with pytest.raises(ValueError, match="at least one process"):
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=0))
    with pytest.raises(TypeError, match="retrain needs a model that is Retrainable"):
        uw.retrain(object(), TRAIN, weights())


def test_a_model_that_cannot_be_stacked_is_logged_and_trained_one_by_one(logged):
    retrained = uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(how="stacked", processes=1))
    assert np.allclose(retrained.parameters, truth())
    assert "trained one by one: a Mortal is trained one by one" in logged.getvalue()


def test_a_killed_worker_loses_nothing(tmp_path):
    model = Mortal(5.5, str(tmp_path / "died"))
    retrained = uw.retrain(model, TRAIN, weights(), retraining=uw.Retraining(processes=2, folder=tmp_path / "kept"))
    assert (tmp_path / "died").exists()
    assert np.array_equal(
        retrained.parameters,
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1)).parameters,
    )
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 12


def test_a_killed_job_resumes_from_its_finished_results(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from support.dying_worker import *\n"
        "uw.retrain(Mortal(5.5, sys.argv[2], True), TRAIN, weights(), processes=1, folder=sys.argv[3])"
    )
    folder = tmp_path / "kept"
    arguments = [str(Path(__file__).parents[1]), str(tmp_path / "died"), str(folder)]
    died = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    assert died.returncode != 0
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.npz")}
    assert len(before) == 3
    reports = []
    retrained = uw.retrain(
        Mortal(5.5),
        TRAIN,
        weights(),
        retraining=uw.Retraining(processes=1, folder=folder, progress=lambda *report: reports.append(report)),
    )
    assert np.allclose(retrained.parameters, truth())
    assert reports[0] == ("retrain", 3, 12) and reports[-1] == ("retrain", 12, 12)
    assert all((folder / name).stat().st_mtime_ns == when for name, when in before.items())


def test_a_damaged_file_is_logged_and_its_training_repeated(tmp_path, logged):
    first = uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1, folder=tmp_path))
    files = sorted(tmp_path.glob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)
    second = uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1, folder=tmp_path))
    assert np.array_equal(first.parameters, second.parameters)
    assert logged.getvalue().count("this training is repeated") == 2


def test_jobs_that_share_a_folder_never_read_each_others_results(tmp_path):
    def is_cached(model=None, train=TRAIN, **more):
        reports = []
        uw.retrain(
            model or Mortal(5.5),
            train,
            weights()[:2],
            retraining=uw.Retraining(
                processes=1, folder=tmp_path, progress=lambda stage, done, of: reports.append(done)
            ),
            **more,
        )
        return reports == [2]  # no training was left

    assert not is_cached() and is_cached()
    assert not is_cached(Mortal(5.6)) and not is_cached(seed=1)
    assert not is_cached(train=uw.Examples(TRAIN.x + 1, TRAIN.y))
    reports = []
    retraining = uw.Retraining(folder=tmp_path, progress=lambda *report: reports.append(report))
    base, after = retrain_without(retraining, Mortal(5.5), TRAIN, QUERIES, [np.array([0])])
    assert reports == [("retrain", 1, 2), ("retrain", 2, 2)]
    assert np.allclose(base, 5.5 + np.arange(3)) and np.allclose(after[:, 0], 6 + np.arange(3))


def test_a_full_disk_reports_what_is_saved_and_the_next_call_resumes(tmp_path, monkeypatch):
    write, writes_left = result_cache.write_archive, [5]

    def until_full(*arguments, **keywords):
        writes_left[0] -= 1
        if writes_left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments, **keywords)

    monkeypatch.setattr(result_cache, "write_archive", until_full)
    with pytest.raises(
        OSError, match=r"No space left on device.*5 finished results are saved .*call again with the same"
    ):
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1, folder=tmp_path))
    writes_left[0] = 7
    assert np.allclose(
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1, folder=tmp_path)).parameters,
        truth(),
    )


def test_a_linear_model_is_retrained_like_any_other():
    model, train, *_ = logistic_fit()
    rows = np.ones((3, len(train)))
    rows[1, :20] = 0
    from_one, from_two = (
        uw.retrain(model, train, rows, retraining=uw.Retraining(processes=p)).parameters for p in (1, 2)
    )
    assert np.allclose(from_one, from_two, atol=1e-12) and np.allclose(from_one[0], from_one[2], atol=1e-9)
    assert np.allclose(from_one[1], model.retrain(train, rows[1]).parameters, atol=1e-12)


@pytest.mark.slow
def test_a_killed_worker_of_ray_loses_nothing(tmp_path):
    pytest.importorskip("ray")
    model = Mortal(5.5, str(tmp_path / "died"))
    retrained = uw.retrain(model, TRAIN, weights(), retraining=uw.Retraining(how="ray", folder=tmp_path / "kept"))
    assert (tmp_path / "died").exists()
    assert np.array_equal(
        retrained.parameters,
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(processes=1)).parameters,
    )
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 12
    with pytest.raises(ValueError, match="without these examples none of class"):
        linear, train, *_ = logistic_fit()
        uw.retrain(linear, train, (train.y == 1) * np.ones((2, len(train))), retraining=uw.Retraining(how="ray"))
