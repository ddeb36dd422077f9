import json
import os
import pickle
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from upweight import Scores, Unit
from upweight.core.archive import as_plain, read_archive, write_archive

ARRAYS = {"values": np.array([[0.1, -2.5, 3.0]]), "ids": np.array(["ä", "猫", "🐈"]), "counts": np.arange(3)}
FACTS = {"method": "Influence", "kind": "a fact of its own", "note": "λ ≤ 1", "none": None, "steps": [1, 2]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "file"
    write_archive(path, "scores", ARRAYS, FACTS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "file"


def reads_the_same(path):
    arrays, facts = read_archive(path, "scores")
    return facts == FACTS and all(
        np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype for name, array in ARRAYS.items()
    )


def test_arrays_and_facts_come_back_from_a_file(tmp_path):
    write_archive(tmp_path / "file", "scores", ARRAYS, FACTS)
    assert reads_the_same(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]  # under the very name, and nothing beside it


@given(array=hnp.arrays(st.sampled_from(["f8", "f4", "i8", "u1", "?", "c16", "U7"]), hnp.array_shapes(min_side=0)))
def test_every_array_comes_back_bit_for_bit(scratch, array):
    scratch.unlink(missing_ok=True)
    write_archive(scratch, "test", {"array": array}, {})
    back = read_archive(scratch, "test")[0]["array"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_makes_no_difference(written, scratch, position, bit):
    damaged = bytearray(written)
    damaged[position % len(damaged)] ^= 1 << bit
    scratch.write_bytes(damaged)
    try:
        assert reads_the_same(scratch)  # some bits of a zip file mean nothing here, such as a member's date
    except ValueError as error:
        assert str(scratch) in str(error)


def test_a_flipped_bit_in_what_counts_is_refused(written, scratch):
    for name, array in ARRAYS.items():
        damaged = bytearray(written)
        damaged[written.index(array.tobytes()) + 2] ^= 4
        scratch.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"damaged .*: {name}.npy does not fit its checksum"):
            read_archive(scratch, "scores")


def test_a_shape_that_shrank_is_refused(scratch):
    """Left to itself, numpy reads the smaller array and never comes to the checksum."""
    scratch.unlink(missing_ok=True)
    write_archive(scratch, "scores", {"values": np.ones((100, 30))}, {})
    scratch.write_bytes(scratch.read_bytes().replace(b"(100, 30)", b"(100, 10)"))
    assert np.load(scratch)["values"].shape == (100, 10)
    with pytest.raises(ValueError, match=r"values\.npy does not fit its checksum"):
        read_archive(scratch, "scores")


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(written, scratch, share):
    scratch.write_bytes(written[: int(share * len(written))])
    with pytest.raises(ValueError, match="is damaged or was not written by upweight"):
        read_archive(scratch, "scores")


def test_a_lost_array_is_noticed(written, scratch):
    scratch.write_bytes(written)
    with zipfile.ZipFile(scratch) as whole:
        members = {name: whole.read(name) for name in whole.namelist() if name != "counts.npy"}
    with zipfile.ZipFile(scratch, "w") as poorer:
        for name, content in members.items():
            poorer.writestr(name, content)
    with pytest.raises(ValueError, match=r"expected the arrays \['counts', 'ids', 'values'\], got \['ids', 'values'\]"):
        read_archive(scratch, "scores")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hidden = np.array([Bomb()], dtype=object)
    (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb()))
    np.save(tmp_path / "array.npy", hidden)
    np.savez(tmp_path / "zip.npz", values=hidden, _header=np.array("{}"))
    for name in ("pickle", "array.npy", "zip.npz"):
        with pytest.raises(ValueError, match="not written by upweight"):
            Scores.load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_files_of_other_programs_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.eye(2))
    np.savez(tmp_path / "zip.npz", values=np.eye(2))
    np.savez(tmp_path / "list.npz", _header=np.array(json.dumps([1, 2])))
    np.savez(tmp_path / "words.npz", _header=np.array("no json"))
    (tmp_path / "text").write_text("query,train,score\n")
    (tmp_path / "empty").touch()
    for name in os.listdir(tmp_path):
        with pytest.raises(ValueError, match=f"{name}.* not written by upweight"):
            read_archive(tmp_path / name, "scores")


def test_another_kind_or_another_form_is_refused(tmp_path):
    write_archive(tmp_path / "fit", "fitted", ARRAYS, FACTS)
    with pytest.raises(ValueError, match=r"expected .*fit to hold scores, got fitted"):
        Scores.load(tmp_path / "fit")
    for schema, age in ((1, "an older"), (3, "a newer")):
        write_archive(tmp_path / "other", "scores", ARRAYS, FACTS, schema)
        with pytest.raises(ValueError, match=rf"written by {age} version of upweight \(form {schema} of scores"):
            read_archive(tmp_path / "other", "scores", schema=2)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "nowhere", "scores")
    with pytest.raises(ValueError, match="to be a file, got a folder"):
        read_archive(tmp_path, "scores")


def test_simultaneous_writers_do_not_mix_their_contents(tmp_path):
    path = tmp_path / "scores.npz"

    def write(value):
        Scores(np.full((20, 30), value), np.arange(20), np.arange(30), Unit.RANK).save(path)
        return set(Scores.load(path).values.ravel().tolist())

    with ThreadPoolExecutor(8) as pool:
        assert all(len(contents) == 1 for contents in pool.map(write, np.arange(40.0)))
    assert os.listdir(tmp_path) == ["scores.npz"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_the_permissions_of_a_file_are_those_that_the_user_sets(tmp_path):
    before = os.umask(0o022)
    try:
        write_archive(tmp_path / "file", "scores", ARRAYS, FACTS)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def named(): ...


def test_values_become_plain_values_of_json():
    value = {"a": (1, np.float32(0.5)), "b": np.arange(2), "c": Unit.RANK, "d": named, "e": float("inf")}
    assert as_plain(value) == {"a": [1, 0.5], "b": [0, 1], "c": "RANK", "d": "named", "e": float("inf")}
    assert as_plain({"f": partial(named)})["f"].startswith("functools.partial")
