"""Building a store: it survives kills, its files do not depend on how they were made, and nothing wrong is answered."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.stored_nets import QUERIES, TRAIN, files, model, relative_error, store  # noqa: E402
from upweight.core.files import open_atomically  # noqa: E402
from upweight.store.build import PHASES  # noqa: E402
from upweight.store.header import _checksum  # noqa: E402
from upweight.store.manifest import manifest_writer  # noqa: E402

RECIPE = uw.Influence(curvature=uw.KFAC())


def answer(folder, **settings):
    return RECIPE.fit(model(), TRAIN, store=uw.Store(folder, **settings)).attribute(QUERIES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "store"
    store(folder).build(model(), TRAIN)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "store"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_build_killed_at_random_moments_ends_with_the_same_bytes_and_repeats_one_file_per_kill(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "support.killed_builds"]
    arguments = [str(tmp_path / "killed"), "coordinates", "5"]
    counts = subprocess.run([*run, *arguments], env=environment, capture_output=True, check=True).stdout
    made, needed, killed, are_equal = counts.decode().split()
    assert int(killed) == 5 and are_equal == "True"
    assert int(needed) <= int(made) <= int(needed) + int(killed)
    assert uw.Store(tmp_path / "killed").check() == []


def test_files_do_not_depend_on_the_order_in_which_they_are_made(finished, tmp_path):
    builder = store(tmp_path).builder(model(), TRAIN)
    for phase in PHASES:
        for writer, numbers in (("b", builder.missing(phase)[1::2]), ("a", builder.missing(phase)[::-2])):
            with manifest_writer(tmp_path, writer) as manifest:
                for number in numbers:
                    builder.commit(phase, number, manifest)
        with manifest_writer(tmp_path, "a") as manifest:
            for number in builder.missing(phase):
                builder.commit(phase, number, manifest)
    builder.remove_temporary()
    assert files(tmp_path) == files(finished)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("size", [700, 5000, 10**6])
def test_scores_do_not_depend_on_the_size_of_files(precision, size, tmp_path):
    scores = [
        answer(tmp_path / str(bytes_), encoding=uw.Coordinates(precision=precision), shard_bytes=bytes_).values
        for bytes_ in (2000, size)
    ]
    assert relative_error(*scores) <= (1e-6 if precision == "float32" else 2 / 127)


def test_scores_do_not_depend_on_the_examples_of_a_pass(tmp_path, monkeypatch):
    scores = []
    for batch in (60, 7, 1):
        monkeypatch.setattr("upweight.store.store.batch_size", lambda *_, batch=batch: batch)
        scores.append(answer(tmp_path / str(batch), encoding=uw.Coordinates(precision="float32")).values)
    assert max(relative_error(scores[0], other) for other in scores[1:]) <= 1e-6


def test_every_changed_bit_is_refused_with_the_name_of_the_file(copied):
    generator, paths = np.random.default_rng(0), sorted(copied.rglob("*.safetensors"))
    for _ in range(100):
        path = paths[generator.integers(len(paths))]
        content = bytearray(whole := path.read_bytes())
        content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        (problem,) = uw.Store(copied).check()
        assert str(path.relative_to(copied)) in problem and "checksum" in problem
        path.write_bytes(whole)
    assert uw.Store(copied).check() == []


def test_a_changed_file_never_answers(copied):
    path = copied / "rows" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows/00001\.safetensors .* does not fit its checksum"):
        answer(copied)


@pytest.mark.parametrize("file", ["rows/00001.safetensors", "basis/00000.safetensors"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_build_refuses_a_changed_file_of_the_right_size(file, is_finished, copied):
    content = bytearray((copied / file).read_bytes())
    content[-1] ^= 1
    (copied / file).write_bytes(content)
    if not is_finished:
        (copied / "rows" / "00002.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"{file} .* does not fit its checksum; delete it and build again"):
        store(copied).build(model(), TRAIN)
    assert (copied / "rows" / "00002.safetensors").exists() == is_finished  # nothing is built upon it


def test_files_that_changed_places_are_refused(copied):
    first, second = copied / "rows" / "00000.safetensors", copied / "rows" / "00001.safetensors"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two), second.write_bytes(one)
    with pytest.raises(ValueError, match=r"rows/00000\.safetensors .* does not fit its checksum"):
        answer(copied)


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_file_that_is_gone_or_cut_is_made_again_and_nothing_else(damage, copied, finished, monkeypatch):
    path = copied / "rows" / "00002.safetensors"
    path.unlink() if damage == "deleted" else path.write_bytes(path.read_bytes()[:-5])
    assert "rows/00002" in uw.Store(copied).check()[0]
    builder = uw.Store(copied).builder(model(), TRAIN)
    assert [builder.missing(phase) for phase in PHASES] == [[], [], [], [], [2]]
    answer(copied)
    assert files(copied) == files(finished)


def test_half_a_store_is_finished_before_it_answers(copied, finished):
    lines = (copied / "manifest.0.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "manifest.0.jsonl").write_bytes(b"".join(lines[:-3]) + lines[-3][:20])  # the last line is torn
    assert any("is not built yet" in problem for problem in uw.Store(copied).check())
    np.testing.assert_array_equal(answer(copied).values, answer(finished).values)
    assert files(copied) == files(finished)


def test_a_line_in_the_middle_that_is_damaged_is_refused(copied):
    path = copied / "manifest.0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + b"".join(lines[1:]))
    with pytest.raises(ValueError, match=r"line 2 of .*manifest.0.jsonl is damaged"):
        answer(copied)


@pytest.mark.parametrize(
    ("name", "given", "train"),
    [
        ("other parameters", model(seed=1), TRAIN),
        ("the same training examples in another order", model(), TRAIN.take(np.arange(59, -1, -1))),
        ("with another training set", model(), TRAIN.replaced(ids=TRAIN.ids[::-1])),
        ("another training set", model(), TRAIN.replaced(y=(TRAIN.y + 1) % 3)),
        ("another loss", uw.TorchModel(model().network.net, lambda net, batch: net(batch.x).sum(1)), TRAIN),
    ],
    ids=["model", "order", "ids", "labels", "loss"],
)
def test_a_store_of_something_else_never_answers(name, given, train, finished):
    with pytest.raises(ValueError, match=name):
        RECIPE.fit(given, train, store=uw.Store(finished))


@pytest.mark.parametrize("settings", [{"encoding": uw.LoGra()}, {"seed": 3}, {"factor_examples": 5}])
def test_settings_that_are_not_those_of_the_store_are_refused(settings, finished):
    with pytest.raises(ValueError, match=f"was made with {next(iter(settings)).replace('factor_examples', 'sample')}"):
        RECIPE.fit(model(), TRAIN, store=uw.Store(finished, **settings))


def test_a_store_of_another_format_is_refused(copied):
    path = copied / "header.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 3'))
    with pytest.raises(ValueError, match="written by another version of upweight"):
        answer(copied)


def test_a_changed_header_is_refused(copied):
    path = copied / "header.json"
    path.write_text(path.read_text().replace('"rows": 60', '"rows": 61'))
    with pytest.raises(ValueError, match=r"header\.json is damaged"):
        answer(copied)


@pytest.mark.parametrize(
    "changes", [{"rows": "x"}, {"batch": 0}, {"encoding": {"name": "Other"}}, {"layouts": [3]}, {"identity": []}, None]
)
def test_a_header_of_other_types_is_refused_though_its_checksum_fits(changes, copied):
    path = copied / "header.json"
    contents = {**json.loads(path.read_text()), **(changes or {})}
    contents["checksum"] = _checksum({name: part for name, part in contents.items() if name != "checksum"})
    path.write_text("[" * 100_000 if changes is None else json.dumps(contents))
    with pytest.raises(ValueError, match=r"header\.json is damaged or was not written by upweight"):
        answer(copied)


def test_a_deep_line_of_the_manifest_is_refused(copied):
    next(copied.glob("manifest.*.jsonl")).write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is damaged"):
        answer(copied)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="is not a store and not empty"):
        answer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_builders_of_one_name_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    store(tmp_path).builder(model(), TRAIN)
    with manifest_writer(tmp_path, "0"), pytest.raises(ValueError, match="another process is building"):
        answer(tmp_path)


def test_a_full_disk_is_said_before_the_start_and_loses_nothing_later(tmp_path, finished, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(OSError, match=r"needs about .* bytes, the disk has 1"):
            store(tmp_path).build(model(), TRAIN)
    real, count = open_atomically, iter(range(100))

    def full(path):
        if next(count) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("upweight.store.shard_files.open_atomically", full)
        with pytest.raises(OSError, match=r"the disk is full: no room for \w+/\d+\.safetensors"):
            store(tmp_path).build(model(), TRAIN)
    store(tmp_path).build(model(), TRAIN)
    assert files(tmp_path) == files(finished)


def test_a_gradient_that_is_not_finite_is_named_by_its_example(tmp_path):
    def loss(net, batch):
        losses = torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")
        return losses + 0 * (net(batch.x).sum(1) - net(batch.x).sum(1)[40 % len(losses)]).sqrt().nan_to_num()

    x = TRAIN.x.copy()
    x[17] = 1e200  # its loss is finite in double precision, and its factors are not in single precision
    train = TRAIN.replaced(x=x)
    with pytest.raises(ValueError, match="'t17'"):
        RECIPE.fit(model(), train, store=uw.Store(tmp_path, uw.ExactFactors()))


def test_what_is_no_store_and_no_method_for_one_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"expected store=uw.Store\(folder\), got"):
        RECIPE.fit(model(), TRAIN, store=str(tmp_path))
    with pytest.raises(TypeError, match="KNNShapley cannot answer from a store"):
        uw.KNNShapley().fit(model(), TRAIN, store=uw.Store(tmp_path))
    with pytest.raises(TypeError, match=r"GaussNewton\(\) cannot be computed from coordinates"):
        uw.Influence(curvature=uw.GaussNewton()).fit(model(), TRAIN, store=uw.Store(tmp_path))
    with pytest.raises(ValueError, match="expected precision to be one of"):
        uw.Coordinates(precision="int2")
    with pytest.raises(ValueError, match="expected directions of at least 1"):
        uw.Coordinates(directions=0)


def test_a_fit_says_the_plan_before_it_builds_and_the_kept_share_before_the_rows(tmp_path, capsys):
    fitted = uw.Influence(curvature=uw.EKFAC()).fit(model(), TRAIN, store=store(tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("60 rows of") and any("to build, for one process" in line for line in lines)
    assert min(fitted.diagnostics["kept_share"].values()) > 0.9995
    assert lines[-1] == "Rows keep nearly all of the squared scores of every layer."
    narrow = store(tmp_path / "narrow", encoding=uw.Coordinates(directions=2))
    shares = uw.Influence(curvature=uw.EKFAC()).fit(model(), TRAIN, store=narrow).diagnostics["kept_share"].values()
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"Rows keep {min(shares):.1%} to {max(shares):.1%} of the squared scores" in last
    uw.Influence(curvature=uw.EKFAC()).fit(model(), TRAIN, store=store(tmp_path))
    assert capsys.readouterr().err == ""  # nothing is built


def test_the_plan_says_what_the_build_takes(finished, tmp_path):
    plan = uw.Store(tmp_path, uw.Coordinates(directions=5)).plan(model(), TRAIN)
    rows = 3 + 3 + 3 + 2 + 2 * 4  # two numbers of both sides of both layers in a byte, and a scale for each layer
    assert (plan.bytes_per_row, plan.rows, plan.coverage, plan.left_out) == (rows, 60, 1.0, ())
    assert f"60 rows of {rows} bytes" in str(plan) and "to build, for one process" in str(plan)
    assert list(tmp_path.iterdir()) == []
    size = sum(len(content) for name, content in files(finished).items() if name.startswith("rows"))
    assert size < 60 * uw.Store(finished).plan(model(), TRAIN).bytes_per_row + 1200 * len(files(finished))
