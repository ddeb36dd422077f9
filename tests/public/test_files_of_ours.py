"""Every file of ours is read to an equal answer, or refused with a ValueError, whatever was done to it."""

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.core.identity import checksum
from upweight.evaluate.removals import named_removals

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = (X[:, 0] + RNG.normal(size=30) > 0).astype(int)
TRAIN, QUERIES = uw.Examples(X, Y), uw.Examples(X[:3] + 0.1, Y[:3], ids=["a", "b", "c"])
LINEAR = uw.explainable(LogisticRegression(tol=1e-8).fit(X, Y), TRAIN)
TREES = uw.explainable(GradientBoostingClassifier(n_estimators=3, max_depth=2).fit(X, Y), TRAIN)
RECIPES = {
    "influence": (uw.Influence(), LINEAR),
    "leave one out": (uw.LeaveOneOut(), LINEAR),
    "leaf refit": (uw.LeafRefit(), TREES),
    "leaf influence": (uw.LeafInfluence(), TREES),
    "boostin": (uw.BoostIn(), TREES),
    "trex": (uw.TREX(), TREES),
    "tree similarity": (uw.TreeSim(), TREES),
    "relatif": (uw.RelatIF(), LINEAR),
    "representer points": (uw.RepresenterPoints(), LINEAR),
}
FORGOTTEN = uw.forget(LINEAR, TRAIN, [0, 5, 7], unseen=uw.Examples(RNG.normal(size=(12, 3)), np.tile([0, 1], 6)))


def scores_of(scores):
    texts = [repr(scores), scores._repr_html_(), scores.predictions and scores.predictions.predicted]
    return [scores.values.tolist(), scores.query_ids.tolist(), scores.train_ids.tolist(), scores.diagnostics, *texts]


def truth_of(truth):
    return [truth.base.tolist(), truth.after.tolist(), truth.removals, truth.seeds, truth.warnings, repr(truth)]


def patch_of(patch):
    return patch.as_dict()


def reader_of_fit(name):
    recipe, model = RECIPES[name]
    return lambda path: recipe.load(path, model, TRAIN).attribute(QUERIES).values.tolist()


READERS = {
    "scores": lambda path: scores_of(uw.Scores.load(path)),
    "truth": lambda path: truth_of(uw.Truth.load(path)),
    "patch": lambda path: patch_of(uw.Patch.load(path)),
    "certificate": lambda path: uw.check_certificate(path, FORGOTTEN.estimator),
    **{name: reader_of_fit(name) for name in RECIPES},
}
ARCHIVES = [name for name in READERS if name not in ("patch", "certificate")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of every kind, under its name."""
    folder = tmp_path_factory.mktemp("ours")
    fits = {name: recipe.fit(model, TRAIN) for name, (recipe, model) in RECIPES.items()}
    fits["influence"].attribute(QUERIES).save(folder / "scores")
    removals = named_removals({"one": [0], "two": [1, 2]})
    uw.retrain_truth(LINEAR, TRAIN, QUERIES, removals, retraining=uw.Retraining(processes=1)).save(folder / "truth")
    uw.Patch.of(TRAIN, {0: 1 - Y[0].item(), 5: "drop"}).save(folder / "patch")
    FORGOTTEN.save_certificate(folder / "certificate")
    for name, fitted in fits.items():
        fitted.save(folder / name)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return {name: READERS[name](folder / name) for name in READERS}


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return out.getvalue()


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def claimed(shape, dtype="<f8", data=b""):
    """An array whose header claims another shape."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def header_of(members):
    return json.loads(str(np.load(io.BytesIO(members["_header.npy"]))))


def with_header(members, header):
    """The members with this header. Its checksum is made to fit, as somebody would who forges a file."""
    if isinstance(header, dict) and "checksum" in header:
        arrays = {n.removesuffix(".npy"): np.load(io.BytesIO(d)) for n, d in members.items() if n != "_header.npy"}
        content = {name: value for name, value in header.items() if name != "checksum"}
        header = {**content, "checksum": checksum(json.dumps(content, sort_keys=True), dict(sorted(arrays.items())))}
    return {**members, "_header.npy": npy(np.array(header if isinstance(header, str) else json.dumps(header)))}


def refused_or_equal(name, path, expected):
    try:
        answer = READERS[name](path)
    except ValueError as error:
        assert str(error)
        return
    assert repr(answer) == repr(expected[name])


WRONG = [None, True, -1, 10**30, 1.5, float("nan"), float("inf"), "x", "", [], {}, [[1]], {"a": {"b": []}}, [None]]


def forgeries(members):
    """Headers with a part that is missing or something else, one at a time."""
    header = header_of(members)
    for name in header:
        yield {part: value for part, value in header.items() if part != name}
        yield from ({**header, name: wrong} for wrong in WRONG if name != "checksum" and wrong != header[name])
    facts = header["facts"]
    for name in facts:
        yield {**header, "facts": {part: value for part, value in facts.items() if part != name}}
        if name not in ("described", "seed", "diagnostics", "recipe", "measurement", "facts"):  # what they say is free
            yield from ({**header, "facts": {**facts, name: wrong}} for wrong in WRONG)
    yield from ("[" * 100_000, "{" * 10_000, "", "null", "1e999", '{"kind":' * 20_000)


@pytest.mark.parametrize("name", ["scores", "truth", "influence", "leave one out", "trex"])
def test_a_forged_header_is_refused(name, folder, expected, tmp_path):
    members = members_of(folder / name)
    for header in forgeries(members):
        (tmp_path / "f").write_bytes(packed(with_header(members, header)))
        with suppress(ValueError):
            READERS[name](tmp_path / "f")


@pytest.mark.parametrize("name", ARCHIVES)
def test_arrays_that_were_changed_are_refused(name, folder, expected, tmp_path):
    members = members_of(folder / name)
    arrays = [member for member in members if member != "_header.npy"]
    huge, big = claimed("(1000000000000, 40)"), 8 * 10**15
    contents = [
        b"", b"\x93NUMPY", huge, claimed(f"({big},)"), claimed("(-1,)"), claimed("(0, 10000000000000000000000)"),
        claimed("(1000000000000,)", "|S0"), claimed("(3,)", "<f8", bytes(24)), claimed("()", "|O"), claimed("(" * 3000),
        claimed("(2,)", "<M8[s]", bytes(16)), npy(np.zeros(2, dtype=[("a", "f8")])), npy(np.array("text")),
        npy(np.full((2, 3), np.nan)), npy(np.zeros((3, 30), dtype="f4")), npy(np.zeros((3, 30), dtype=complex)),
    ]  # fmt: skip
    for member in arrays:
        others = [*contents, *(members[other] for other in arrays if members[other] != members[member])]
        values = np.load(io.BytesIO(members[member]))
        others += [npy(values + values.dtype.type(1))] if values.dtype.kind in "fiu" and values.size else []
        for content in others:
            (tmp_path / "f").write_bytes(packed({**members, member: content}))
            refused_or_equal(name, tmp_path / "f", expected)
            try:
                forged = with_header({**members, member: content}, header_of(members))
            except Exception:
                continue
            (tmp_path / "f").write_bytes(packed(forged))
            with suppress(ValueError):
                READERS[name](tmp_path / "f")


@pytest.mark.parametrize("name", ["scores", "truth", "leaf refit"])
def test_members_that_are_missing_twice_compressed_or_foreign_are_refused(name, folder, expected, tmp_path):
    members = members_of(folder / name)
    first = next(iter(members))
    variants = [packed({other: data for other, data in members.items() if other != each}) for each in members]
    with pytest.warns(UserWarning, match="Duplicate name"):
        variants.append(packed([*members.items(), (first, members[first])]))
    variants += [
        packed({**members, "more.npy": npy(np.eye(2))}),
        packed({**members, "notes.txt": b"hello"}),
        packed({**members, "../outside.npy": npy(np.eye(2))}),
        packed({**members, "zeros.npy": npy(np.zeros(10**5))}, zipfile.ZIP_DEFLATED),
        packed({}),
    ]
    for content in variants:
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            READERS[name](tmp_path / "f")


@pytest.mark.parametrize("name", READERS)
def test_files_of_other_kinds_folders_and_pipes_are_refused(name, folder, tmp_path):
    foreign = {
        "empty": b"",
        "text": b"query,train\n1,2\n",
        "zeros": bytes(1000),
        "latin": b"\xff\xfe\xfa",
        "json": b'{"a": 1}',
        "deep": b"[" * 100_000,
        "list": b"[1]",
        "null": b"null",
        "number": b"1" * 5000,
        "mark": b"\xef\xbb\xbf{}",
    }
    for other, content in foreign.items():
        (tmp_path / other).write_bytes(content)
    np.savez(tmp_path / "npz", values=np.eye(2))
    np.savez(tmp_path / "objects", values=np.array([{}], dtype=object))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for other in READERS:
        if other != name:
            shutil.copy(folder / other, tmp_path / f"of {other}")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"\w"):
            READERS[name](path)
    with pytest.raises(FileNotFoundError):
        READERS[name](tmp_path / "nowhere")


@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("name", ["scores", "truth", "patch", "certificate", "leaf refit"])
def test_any_damage_is_refused_or_makes_no_difference(name, folder, expected, data, tmp_path_factory):
    content = bytearray((folder / name).read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    content[start:end] = data.draw(st.binary(max_size=40))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    refused_or_equal(name, path, expected)


def sealed(changed):
    """JSON with the checksum that fits it, as somebody would who forges a file."""
    crc = zlib.crc32(json.dumps({k: v for k, v in changed.items() if k != "crc32"}, separators=(",", ":")).encode())
    return {**changed, "crc32": crc}


def patches(content):
    """Patches with a part that is missing or something else; their checksum is made to fit."""
    for name in content:
        yield {part: value for part, value in content.items() if part != name}
        yield from (sealed({**content, name: wrong}) for wrong in WRONG)
    for name in content["train"]:
        yield from (sealed({**content, "train": {**content["train"], name: wrong}}) for wrong in WRONG)
    decision = content["decisions"][0]
    for name in (*decision, "drop"):
        changed = [{**decision, name: wrong} for wrong in WRONG]
        yield from (sealed({**content, "decisions": [each, *content["decisions"][1:]]}) for each in changed)
    yield {**content, "decisions": content["decisions"][:1]}  # one was taken away, and the checksum is that of before


def test_a_changed_patch_is_refused_or_says_what_it_holds(folder, tmp_path):
    content = json.loads((folder / "patch").read_text())
    refused = 0
    for changed in patches(content):
        (tmp_path / "p.json").write_text(json.dumps(changed))
        try:
            patch = uw.Patch.load(tmp_path / "p.json")
        except ValueError:
            refused += 1
            continue
        assert json.loads(json.dumps(patch.as_dict())) == json.loads((tmp_path / "p.json").read_text())
    assert refused > 60


def certificates(content):
    """Certificates with a part that is missing or something else; their checksum is made to fit."""
    for name in content:
        rest = {part: value for part, value in content.items() if part != name}
        yield rest if name == "crc32" else sealed(rest)
        if name not in ("statement", "measurement", "facts", "crc32"):  # what they say is free
            yield from (sealed({**content, name: wrong}) for wrong in WRONG if wrong not in ([], 10**30))
    for wrong in WRONG:
        yield {**content, "crc32": wrong}
        yield sealed({**content, "steps": [wrong]})
        yield sealed({**content, "steps": [{**content["steps"][0], "remembers": wrong}]})
        yield from (sealed({**content, "digests": {**content["digests"], n: wrong}}) for n in ("estimator_after", "x"))
    yield sealed({**content, "deletion": not content["deletion"]})
    yield sealed({**content, "forgotten": content["examples"]})
    yield {**content, "forgotten": 1}  # the checksum is that of before


def test_a_changed_certificate_or_another_estimators_is_refused(folder, tmp_path):
    content = json.loads((folder / "certificate").read_text())
    assert content == json.loads(json.dumps(FORGOTTEN.certificate)) and content["deletion"]
    for changed in certificates(content):
        if changed == content:
            continue
        (tmp_path / "c.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"is not (a complete|the) certificate"):
            uw.check_certificate(tmp_path / "c.json", FORGOTTEN.estimator)
    with pytest.raises(ValueError, match="the estimator from before, with the examples"):
        uw.check_certificate(folder / "certificate", LINEAR.estimator)
    with pytest.raises(ValueError, match="got one with"):
        uw.check_certificate(folder / "certificate", LogisticRegression(tol=1e-8).fit(X[3:], Y[3:]))
    older = {name: value for name, value in content.items() if name != "crc32"}  # version 1 had no checksum
    (tmp_path / "older.json").write_text(json.dumps({**older, "version": 1}))
    assert uw.check_certificate(tmp_path / "older.json", FORGOTTEN.estimator)["statement"] == content["statement"]


def test_a_result_under_another_results_name_is_not_read(tmp_path):
    tasks = named_removals({"a": [0], "b": [1]})

    def truth():
        retraining = uw.Retraining(processes=1, folder=tmp_path)
        return uw.retrain_truth(LINEAR, TRAIN, QUERIES, tasks, retraining=retraining).after.tolist()

    before = truth()
    files = sorted(tmp_path.glob("*.npz"))
    for source in files:
        for other in files:
            if other != source:
                shutil.copy(source, other)
        assert truth() == before
    for file in files:
        file.write_bytes(b"PK\x03\x04 nonsense")
        assert truth() == before
        np.savez(file, result=np.zeros(3))
        assert truth() == before
