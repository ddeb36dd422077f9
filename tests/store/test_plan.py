"""What is said before a build: its time, what of it is left, and what to do if it cannot start."""

from __future__ import annotations

import builtins
import time

import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.network_families import cross_entropy  # noqa: E402
from support.stored_nets import QUERIES, TRAIN, model, store  # noqa: E402
from upweight.store import engines, pilot_times  # noqa: E402

SECONDS = 0.004  # that an example spends in the slow net


def slow_loss(net, batch):
    time.sleep(SECONDS * len(batch.x))
    return cross_entropy(net, batch)


def test_the_time_is_that_of_the_build(tmp_path):
    made = uw.TorchModel(model().network.net, slow_loss)
    said = store(tmp_path).plan(made, TRAIN).seconds
    start = time.perf_counter()
    store(tmp_path).build(made, TRAIN)
    assert said == pytest.approx(time.perf_counter() - start, rel=0.5)
    assert said > 3 * 60 * SECONDS  # factors, moments and rows each take a pass


def test_wide_factors_are_not_decomposed_to_say_the_time_but_count(tmp_path, monkeypatch):
    narrow = store(tmp_path).plan(model(), TRAIN).seconds
    monkeypatch.setattr(pilot_times, "LARGEST_DECOMPOSED", 2)
    widths = []
    monkeypatch.setattr(pilot_times.torch, "eye", lambda n, **k: widths.append(n) or torch.ones(n, n, **k))
    header = store(tmp_path).header(model(), TRAIN)
    none = dict.fromkeys(("factors", "moments", "basis", "rows"), 0.0)
    seconds = pilot_times.estimated_seconds(model(), TRAIN, header, {**none, "eigenvectors": 1.0})
    assert {max(layout.left, layout.right) for layout in header.layouts.values()} <= set(widths) and 2 in widths
    assert seconds > 0 and narrow > 0


@pytest.mark.parametrize("encoding", [None, uw.ExactFactors()])
def test_the_plan_says_what_is_left(encoding, tmp_path):
    kept = store(tmp_path, encoding, shard_bytes=1000 if encoding is None else 10**5)
    whole = kept.plan(model(), TRAIN)
    assert whole.finished == 0 and "files of rows are there" not in str(whole)
    kept.build(model(), TRAIN)
    done = kept.plan(model(), TRAIN)
    assert (done.seconds, done.finished) == (0.0, done.shards)
    assert "All files are there: nothing is left to build." in str(done)
    (tmp_path / "rows" / "00000.safetensors").unlink()
    left = kept.plan(model(), TRAIN)
    assert left.finished == left.shards - 1 and left.seconds > 0
    if left.finished:
        assert f"{left.finished} of {left.shards} files of rows are there. About" in str(left)


def test_a_plan_without_its_basis_is_not_finished(tmp_path):
    store(tmp_path).build(model(), TRAIN)
    (tmp_path / "basis" / "00000.safetensors").unlink()
    assert "nothing is left" not in str(store(tmp_path).plan(model(), TRAIN))


def test_a_finished_store_is_asked_and_built_where_nothing_can_be_written(tmp_path, monkeypatch):
    store(tmp_path).build(model(), TRAIN)
    monkeypatch.setattr(engines, "manifest_writer", None)  # a call of it fails
    stages = []
    uw.Store(tmp_path, progress=lambda *stage: stages.append(stage)).build(model(), TRAIN)
    assert [stage for stage, done, total in stages if done == total] == list(engines.STAGES.values())[:5]
    uw.Influence(curvature=uw.KFAC()).fit(model(), TRAIN, store=uw.Store(tmp_path)).attribute(QUERIES)


def test_what_a_build_that_was_killed_after_its_last_file_left_is_removed(tmp_path):
    store(tmp_path).build(model(), TRAIN)
    left = tmp_path / "factors" / "00000.safetensors"
    left.write_bytes(b"left")
    store(tmp_path).build(model(), TRAIN)
    assert not left.exists()


def test_a_folder_that_cannot_be_written_is_named_with_a_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be made in .*file/store \(Not a directory\): name a folder"):
        store(tmp_path / "file" / "store").build(model(), TRAIN)
    store(tmp_path / "store").builder(model(), TRAIN)  # only the header

    def refuse(path, mode="r", *args, **settings):
        if "a" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, mode, *args, **settings)

    usual = builtins.open
    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(PermissionError, match=r"are missing, and it cannot be written \(Permission denied\): build it"):
        store(tmp_path / "store").build(model(), TRAIN)


def test_every_part_in_which_a_store_differs_is_named(tmp_path):
    store(tmp_path).build(model(), TRAIN)
    other = model(seed=1)
    with pytest.raises(ValueError, match="made with other parameters and another training set than"):
        store(tmp_path).build(other, TRAIN.take(range(50)))
