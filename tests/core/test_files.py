"""A file is written whole or not at all, and nothing else is lost by it."""

import os
import stat

import numpy as np
import pytest

import upweight as uw
from upweight.core.files import ARCHIVE, PAGE, PATCH, destination, open_atomically
from upweight.report.document import written

SCORES = uw.Scores(np.ones((2, 3)), np.arange(2), np.arange(3), uw.Unit.RANK)
PATCHED = uw.Patch((), "of a training set", 3)
WRITERS = {
    "scores": SCORES.save,
    "patch": PATCHED.save,
    "page": lambda path: written(path, "<!doctype html>new"),
}
OWN_NAME = {"scores": "s.npz", "patch": "p.json", "page": "p.html"}
each_writer = pytest.mark.parametrize("name", WRITERS)


@each_writer
def test_what_is_written_can_be_written_again_and_leaves_nothing_beside_it(name, tmp_path):
    path = tmp_path / f"of_another_suffix.{name}"
    WRITERS[name](path)
    first = path.read_bytes()
    WRITERS[name](path)
    assert path.read_bytes() == first and os.listdir(tmp_path) == [path.name]


@each_writer
@pytest.mark.parametrize("file", ["data.csv", "task.py", "notes.txt", "table.parquet", "Makefile2.mk", "d.tsv.gz"])
def test_a_file_of_something_else_is_never_replaced(name, file, tmp_path):
    path = tmp_path / file
    path.write_text("somebody needs this")
    for spelling in (path, tmp_path / "." / "x" / ".." / file, tmp_path / "link"):
        (tmp_path / "x").mkdir(exist_ok=True)
        if spelling.name == "link":
            spelling.symlink_to(path)
        with pytest.raises(ValueError, match="would be lost"):
            WRITERS[name](spelling)
    assert path.read_text() == "somebody needs this" and sorted(os.listdir(tmp_path)) == sorted([file, "link", "x"])


def test_files_of_other_programs_in_the_same_format_are_not_replaced(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.eye(2))
    (tmp_path / "p.json").write_text('{"settings": "of an editor"}')
    for name in ("scores", "patch"):
        before = (tmp_path / OWN_NAME[name]).read_bytes()
        with pytest.raises(ValueError, match="would be lost"):
            WRITERS[name](tmp_path / OWN_NAME[name])
        assert (tmp_path / OWN_NAME[name]).read_bytes() == before


@each_writer
def test_through_a_symbolic_link_its_target_is_written_and_the_link_stays(name, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / OWN_NAME[name], tmp_path / OWN_NAME[name]
    link.symlink_to(target)
    for old in (None, "old"):  # a link to nothing is followed as well
        if old is not None:
            target.write_text(old)
        WRITERS[name](link)
        assert link.is_symlink() and target.read_bytes() == link.read_bytes() != b"old"
    assert os.listdir(tmp_path / "elsewhere") == [target.name]


@each_writer
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_devices_pipes_and_folders_are_refused_and_stay(name, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", "/dev/null", "/dev/stdout"):
        with pytest.raises(ValueError, match=r"a device or a pipe|prints to or reads from"):
            WRITERS[name](path)
    with pytest.raises(IsADirectoryError):
        WRITERS[name](tmp_path)
    assert stat.S_ISFIFO(pipe.lstat().st_mode) and sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_an_input_is_refused_under_every_name(tmp_path):
    data = tmp_path / "data.html"
    data.write_text("<!doctype html>")
    os.link(data, tmp_path / "hard.html")
    (tmp_path / "soft.html").symlink_to(data)
    for name in ("data.html", "hard.html", "soft.html"):
        with pytest.raises(ValueError, match="is an input"):
            destination(tmp_path / name, PAGE, [tmp_path / "nowhere", data])
        assert destination(tmp_path / name, PAGE).read_text() == "<!doctype html>"


def test_a_stream_of_this_process_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "log.html"
    with open(path, "wb") as file:
        monkeypatch.setattr("upweight.core.files.STANDARD_STREAMS", (file.fileno(),))
        with pytest.raises(ValueError, match="prints to or reads from"):
            destination(path, PAGE)


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.npz"
    SCORES.save(path)
    path.chmod(0o600)
    SCORES.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_writing_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(RuntimeError), open_atomically(path, PAGE) as file:
        file.write(b"half")
        raise RuntimeError("interrupted")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["page.html"]


def test_empty_and_damaged_files_of_the_own_kind_may_be_replaced(tmp_path):
    for contents, name in ((PAGE, "p.html"), (ARCHIVE, "s.npz"), (PATCH, "p.json")):
        for old in (b"", b"damaged"):
            (tmp_path / name).write_bytes(old)
            assert destination(tmp_path / name, contents) == (tmp_path / name).resolve()


@each_writer
def test_a_folder_that_does_not_exist_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder around it; make it first"):
        WRITERS[name](tmp_path / "nowhere" / OWN_NAME[name])
