"""The server answers this machine alone, with the secret alone, and for reading alone."""

from __future__ import annotations

import html
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import upweight as uw
from support.command_line import run, words, written


@pytest.fixture
def server(digits):
    with uw.Viewer(*digits).serve() as running:
        yield running


def send(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response, response.read().decode()


def secret(server):
    return "/" + server.url.split("/", 3)[3]


def test_the_page_and_its_parts_are_there(server):
    response, text = send(server, secret(server))
    assert response.status == 200 and "<title>upweight viewer" in text and "connect-src 'self'" in html.unescape(text)
    assert response.headers["Cache-Control"] == "no-store" and response.headers["X-Frame-Options"] == "DENY"
    response, text = send(server, secret(server) + "query?at=3")
    assert json.loads(text)["entry"]["id"] == "q3" and response.headers["Content-Type"].startswith("application/json")
    assert send(server, secret(server), "HEAD")[1] == ""


@pytest.mark.parametrize("path", ["/", "/wrong/", "/wrong/query?at=0", "//", "/%00/"])
def test_nothing_is_there_without_the_secret(server, path):
    response, text = send(server, path)
    assert response.status == 403 and "q0" not in text and "copy all of it" in text


def test_another_host_or_another_page_is_refused(server):
    assert send(server, secret(server), Host="evil.example")[0].status == 403
    assert send(server, secret(server), Host=f"localhost:{server.port}")[0].status == 200
    assert send(server, secret(server), Sec_Fetch_Site="cross-site")[0].status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_answers_reading_requests_alone(server, method):
    assert send(server, secret(server), method)[0].status == 501


def test_wrong_questions_have_a_status_and_a_sentence(server):
    assert send(server, secret(server) + "nothing")[0].status == 404
    response, text = send(server, secret(server) + "rows?at=x")
    assert response.status == 400 and text == "expected a whole number as at, got 'x'"


def test_a_port_in_use_is_a_sentence_and_closing_frees_it(digits, server):
    viewer = uw.Viewer(*digits)
    with pytest.raises(OSError, match=rf"port {server.port} of 127\.0\.0\.1 is in use"):
        viewer.serve(server.port)
    port = server.port
    server.close()
    with viewer.serve(port) as again:
        assert again.port == port


TASK = """
import numpy as np, upweight as uw
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
x, y = rng.normal(size=(60, 3)), np.arange(60) % 2
train, queries = uw.Examples(x, y, names=["a", "b", "c"]), uw.Examples(x[:5] + 0.1, y[:5], ids=list("vwxyz"))
model = LogisticRegression(tol=1e-8).fit(x, y)
"""


@pytest.fixture
def files(tmp_path):
    task = written(tmp_path / "task.py", TASK)
    names: dict = {}
    exec(TASK, names)
    fitted = uw.Influence().fit(uw.explainable(names["model"], names["train"]), names["train"])
    fitted.attribute(names["queries"]).save(tmp_path / "scores.npz")
    return tmp_path / "scores.npz", task


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(files):
    environment = {**os.environ, "PYTHONPATH": str(Path(uw.__file__).parent.parent), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "upweight", "view", *map(str, files), "--by", "a"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as ran:
        url = ran.stdout.readline().split()[1]
        connection = http.client.HTTPConnection("127.0.0.1", int(url.split(":")[2].split("/")[0]), timeout=20)
        connection.request("GET", "/" + url.split("/", 3)[3] + "query?id=x")
        assert json.loads(connection.getresponse().read())["entry"]["id"] == "x"
        connection.close()
        ran.send_signal(signal.SIGINT)
        assert "The viewer is closed." in ran.stdout.read()
    assert ran.returncode == 0


def test_the_command_refuses_in_a_sentence(files, digits, server, tmp_path):
    scores, task = files
    digits[0].save(tmp_path / "digits.npz")
    refused = run("view", tmp_path / "digits.npz", task, "-q", code=1)
    assert "expected every query id of the scores to be in `queries`" in words(refused.stderr)
    assert "is in use" in words(run("view", scores, task, "-q", "--port", server.port, code=1).stderr)
    assert "no column 'd'" in words(run("view", scores, task, "-q", "--by", "d", code=2).stderr)
    assert "expected a .py file or a table" in words(run("view", scores, scores, code=2).stderr)
    assert "was not written by upweight" in words(run("view", task, task, "-q", code=1).stderr)


def test_a_table_goes_from_explain_to_the_viewer(tmp_path, monkeypatch):
    rows = [f"{i % 7},{i * i % 11},{'yes' if i % 7 + i * i % 11 > 8 else 'no'}" for i in range(90)]
    table, scores = written(tmp_path / "t.csv", "\n".join(["a,b,label", *rows])), tmp_path / "scores.npz"
    options = ("--target", "label", "-q")
    run("explain", table, *options, "--removals", 0, "--queries", 5, "-o", tmp_path / "r.html", "--scores", scores)
    shown = []
    monkeypatch.setattr(uw.ViewerServer, "wait", lambda self: shown.append(send(self, secret(self) + "queries")[1]))
    run("view", scores, table, *options)
    listed = [row["id"] for row in json.loads(shown[0])["rows"]]
    assert listed == [str(i) for i in uw.Scores.load(scores).query_ids.tolist()] and len(listed) == 5
    precious = written(tmp_path / "precious.txt", "mine")
    refused = run("explain", table, *options, "--scores", precious, code=2)
    assert "--scores" in refused.stderr and precious.read_text() == "mine"
