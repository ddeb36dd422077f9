"""If data are missing, cut short or wrong, the error names the file, its source and its hash."""

import io
import re
import urllib.request
import zipfile

import numpy as np
import pytest
from experiments.koh_liang import data
from PIL import Image

MAILS = {"enron1/ham/1.a.ham.txt": b"hello", "enron1/spam/2.b.spam.txt": b"buy", "enron1/Summary.txt": b"-"}


def packed(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return content.getvalue()


def source(home="https://example.org/mails.zip", **more):
    members = [(name, value) for name, value in MAILS.items() if "Summary" not in name]
    return data.Source("mails", home, data.content_hash(members), {"mails.zip": data.zipped(data.mail_name)}, **more)


def test_a_file_is_read_whatever_the_folders_in_its_archive(tmp_path):
    (tmp_path / "mails.zip").write_bytes(packed({f"deeper/{name}": value for name, value in MAILS.items()}))
    assert dict(source().members(tmp_path)) == {n: v for n, v in MAILS.items() if "Summary" not in n}


def test_a_missing_file_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda home, timeout: io.BytesIO(packed(MAILS)))
    source().members(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mails.zip"]


def test_the_error_for_an_unavailable_file_names_its_source_and_hash(tmp_path, monkeypatch):
    def refuse(home, timeout):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    message = rf"{re.escape(str(tmp_path))}/mails.zip is missing.*no network.*example.org.*{source().sha256}"
    with pytest.raises(data.DataError, match=message):
        source().members(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(data.DataError, match=r"mails.zip is missing; expected mails.zip from a shop, SHA-256"):
        source("a shop").members(tmp_path)


def test_an_interrupted_download_leaves_no_file(tmp_path, monkeypatch):
    class Breaks(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError("gone")

    monkeypatch.setattr(urllib.request, "urlopen", lambda home, timeout: Breaks())
    with pytest.raises(data.DataError, match="gone"):
        source().members(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [0, 10, -30])
def test_a_truncated_file_is_reported_with_its_hash(tmp_path, end):
    (tmp_path / "mails.zip").write_bytes(packed(MAILS)[:end])
    with pytest.raises(data.DataError, match=r"damaged or cut short.*SHA-256 of the content"):
        source().members(tmp_path)


def test_a_file_with_other_content_is_refused(tmp_path):
    (tmp_path / "mails.zip").write_bytes(packed({**MAILS, "enron1/ham/1.a.ham.txt": b"hallo"}))
    with pytest.raises(data.DataError, match="does not hold mails"):
        source().members(tmp_path)


def test_a_truncated_array_file_is_reported(tmp_path):
    np.savez(tmp_path / "mnist.npz", xtr=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(data.DataError, match=r"mnist.npz is damaged or cut short"):
        data.mnist(tmp_path)
    content = (tmp_path / "mnist.npz").read_bytes()
    (tmp_path / "mnist.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(data.DataError, match=r"mnist.npz is damaged or cut short"):
        data.mnist(tmp_path)


def picture(colour):
    content = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, colour, colour)).save(content, "JPEG")
    return content.getvalue()


@pytest.mark.parametrize("tests", ["val", "test"])
def test_two_kinds_returns_the_first_pictures_of_two_classes_only(tmp_path, tests):
    names = [f"{part}/{kind}/{i}.jpg" for part in ("train", tests) for kind in ("frog", "dog", "bird") for i in "210"]
    pictures = {name: picture(10 * place) for place, name in enumerate(names)}
    (tmp_path / "animals.zip").write_bytes(packed(pictures))
    animals = data.Source(
        "animals", "-", data.content_hash(pictures.items()), {"animals.zip": data.zipped(lambda n: n)}
    )
    (train, y), (test, y_test) = data.two_kinds(animals, tmp_path, ("dog", "frog"), 8, (2, 1))
    assert train.shape == (4, 8, 8, 3)
    assert train[:, 0, 0, 0].tolist() == [50, 40, 20, 10]  # dogs 0 and 1, then frogs 0 and 1
    assert test[:, 0, 0, 0].tolist() == [140, 110]
    assert (y.tolist(), y_test.tolist()) == ([0, 0, 1, 1], [0, 1])
