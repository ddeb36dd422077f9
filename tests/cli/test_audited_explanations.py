"""upweight explain: the support audit of what it explains."""

import json

from support.command_line import run, words

TASK = """
import numpy as np
import upweight
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3))
y = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
x[50] = x[7]
train = upweight.Examples(x[:40], y[:40], ids=[f"t{i}" for i in range(40)])
queries = upweight.Examples(x[40:], y[40:], ids=[f"q{i}" for i in range(20)])
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""


def test_a_single_prediction_has_a_flag_and_a_sentence_in_json_on_the_terminal_and_on_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK, encoding="utf-8")
    of_one = ("explain", "task.py", "--removals", "0", "--query", "q10")
    (entry,) = json.loads(run(*of_one, "--json").stdout)["queries"]
    assert entry["audit"]["flagged"] and entry["audit"]["sentence"] == "Training example t7 is equal to it."
    assert "Unusual support: Training example t7 is equal to it." in words(run(*of_one).stdout)
    assert "Training example t7 is equal to it." in (tmp_path / "report.html").read_text(encoding="utf-8")
    (entry,) = json.loads(run(*of_one, "--no-audit", "--json").stdout)["queries"]
    assert entry["audit"] is None
