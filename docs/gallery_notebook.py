"""The notebook of the gallery, for marimo: `marimo edit docs/gallery_notebook.py`."""

import marimo

app = marimo.App()


@app.cell
def _():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    import upweight as uw

    digits = load_digits()
    everything = uw.Examples(digits.data / 16, digits.target, shown=digits.images)
    train, queries = everything.take(range(300)), everything.take(range(1500, 1540))
    model = uw.explainable(LogisticRegression(max_iter=2000, tol=1e-8).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    return model, queries, scores, train, uw


@app.cell
def _(queries, scores, train, uw):
    uw.Viewer(scores, train, queries)


@app.cell
def _(model, queries, scores, train, uw):
    with uw.ProgressBars() as bars:
        retraining = uw.Retraining(processes=1, progress=bars)
        check = uw.verify(model, train, queries, scores, removals=4, retraining=retraining)
    check  # noqa: B018 - the output of the cell


@app.cell
def _(model, train, uw):
    uw.mislabeled(model, train, budget=5)


if __name__ == "__main__":
    app.run()
