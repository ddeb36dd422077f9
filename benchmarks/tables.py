"""Public tables as they are: the processor time from a file to a checked report, beside that of reading and fitting.

`OMP_NUM_THREADS=1 python -m benchmarks.tables --data DIR`. With `--only NAME …` the figures of other tables stay.

`upweight explain FILE --target COLUMN` without another option reads the file, fits a default model, computes scores,
checks them by 16 retrainings and writes a report. A script reads the same file by pandas, with separator, header and
encoding known, and fits the same pipeline to the same rows. Both are programs of their own; all their processes count.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import Section, Table, kept_section, verdict, versions

TIMES = 10.0  # the processor time of the script, at most
LIMIT = 1800  # seconds for one report


class PublicTable(NamedTuple):
    """A table: its archive in the folder of data, or the package that brings it; its file there; and its target."""

    name: str
    home: str
    file: str
    target: str


NOTES = [
    "SST-2 has 13,646 columns of words. Rare words are eliminated before the rest of the Hessian, about 4,300 words, "
    "is factored. By a profile of the main process, which has about three quarters of the processor time, a third of "
    "that goes to the support audit, which attributes 1,000 training examples, a fifth to reading and fitting, an "
    "eighth to the first removals that are followed, and a seventh to the factor and the leverages of all rows. The "
    "rest of the time are the retrainings of the check, in processes of their own.",
    "Enron has more words than mails. The model works in coordinates of the mails' Gram matrix, 4,138 × 4,138: the "
    "time goes to products and triangular solves of that size, and to distances between mails.",
    "Rows are of several runs. MovieLens (all ratings), SST-2, Enron and digits were measured beside about eight busy "
    "programs on two cores, where both sides take up to 1.9 times the processor time of quieter runs.",
    "The two sides of the 130 hospitals were measured at the same time, each by its own command, beside as many "
    "programs. Almost all of the script's time is the fit.",
]
TABLES = (
    PublicTable("Adult census", "tables-lime.zip", "adult.csv", "column_15"),
    PublicTable("mushrooms", "tables-lime.zip", "mushroom_data.csv", "column_1"),
    PublicTable("CO₂, weekly", "tables-lime.zip", "co2_data.csv", "rising"),
    PublicTable("diabetes, 130 hospitals", "diabetes130.zip", "dataset_diabetes/diabetic_data.csv", "readmitted"),
    PublicTable("MovieLens, all ratings", "movielens100k.zip", "u.data", "column_3"),
    PublicTable("MovieLens, training part", "movielens100k.zip", "movielens_train.tsv", "column_3"),
    PublicTable("SST-2", "sst2.zip", "sst2_train.tsv", "label"),
    PublicTable("Enron spam", "enron1.zip", "", "kind"),
    PublicTable("iris", "sklearn", "datasets/data/iris.csv", "virginica"),
    PublicTable("digits", "sklearn", "datasets/data/digits.csv.gz", "column_65"),
    PublicTable("RAND health insurance", "statsmodels", "datasets/randhie/randhie.csv", "mdvis"),
    PublicTable("Star 98", "statsmodels", "datasets/star98/star98.csv", "PR50M"),
    PublicTable("extramarital affairs", "statsmodels", "datasets/fair/fair.csv", "affairs"),
    PublicTable("election study 1996", "statsmodels", "datasets/anes96/anes96.csv", "'vote'"),
    PublicTable("mode of travel", "statsmodels", "datasets/modechoice/modechoice.csv", "choice"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the archives of the tables")
    parser.add_argument("--only", nargs="*", help="names of tables; the figures of others stay")
    parser.add_argument("--script", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.script is not None:
        return fit_as_in(json.loads(chosen.script.read_text()))
    for public in TABLES:
        if chosen.only and public.name not in chosen.only:
            continue
        figures = measure(public, chosen.data)
        print(public.name, *figures, flush=True)
        keep([public.name, *figures])
    return None


def keep(row: list[Any]) -> None:
    """Put the figures of one table into the results, in the order of `TABLES`."""
    kept = kept_section("tables")
    rows = {each[0]: each for each in (kept.tables[0].rows if kept else [])} | {row[0]: row}
    table = Table(
        "From a file to a checked report",
        f"at most {TIMES:g} times the processor time of a script that reads the table and fits the model",
        ["table", "rows", "columns", "model", "script CPU s", "of which fit", "report CPU s", "ratio", ""],
        [rows[public.name] for public in TABLES if public.name in rows],
        NOTES,
    )
    command = "OMP_NUM_THREADS=1 python -m benchmarks.tables --data DIR"
    named = versions(["numpy", "pandas", "pyarrow", "scikit-learn", "upweight"])
    Section("tables", "Tables as they are", command, [table], named).keep()


def measure(public: PublicTable, data: Path) -> list[Any]:
    """Everything but the name of a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(public, data, Path(folder))
        report = Path(folder) / "report.html"
        arguments = ["explain", str(path), "--target", public.target, "--out", str(report), "--json"]
        seconds, output = cpu_seconds([sys.executable, "-m", "upweight", *arguments])
        assert report.exists()
        facts = json.loads(output)
        settings = Path(folder) / "script.json"
        settings.write_text(json.dumps(script_settings(path, public.target)))
        command = [sys.executable, "-m", "benchmarks.tables", "--data", str(data), "--script", str(settings)]
        script_seconds, output = cpu_seconds(command)
    rows, columns, fit_seconds = json.loads(output)
    ratio = seconds / script_seconds
    numbers = [f"{script_seconds:.2f}", f"{fit_seconds:.2f}", f"{seconds:.2f}", f"{ratio:.1f}"]
    return [f"{rows:,}", columns, facts["model"]["name"], *numbers, verdict(ratio <= TIMES)]


def file_of(public: PublicTable, data: Path, folder: Path) -> Path:
    """The file as it was published; of Enron, whose mails are files, a table of their texts."""
    if not public.home.endswith(".zip"):
        spec = importlib.util.find_spec(public.home)
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).parent / public.file
    with zipfile.ZipFile(data / public.home) as archive:
        if public.file:
            return Path(archive.extract(public.file, folder))
        path = folder / "enron.csv"
        with path.open("w", newline="", encoding="latin-1") as file:
            writer = csv.writer(file)
            writer.writerow(["kind", "text"])
            for name in sorted(archive.namelist()):
                if name.endswith(".txt") and "/" in name and "__MACOSX" not in name and "Summary" not in name:
                    writer.writerow([name.split("/")[-2], archive.read(name).decode("latin-1")])
    return path


def cpu_seconds(command: list[str]) -> tuple[float, str]:
    """(processor seconds of a program with all its processes, what it prints)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), done.stdout


def script_settings(path: Path, target: str) -> dict[str, Any]:
    """How pandas reads this file, and which columns are what, as the command finds out."""
    from upweight.cli.fitted_table import fit_table
    from upweight.cli.table_files.read import read_table
    from upweight.cli.table_files.table_format import ReadingOptions

    table = read_table(path, ReadingOptions(columns=(target,)), [target])
    form, columns = table.form, list(table.frame.columns)
    fitted = fit_table(table.frame, target)
    return {
        "path": str(path),
        "read": {
            "sep": form.separator,
            "encoding": form.encoding,
            "decimal": form.decimal,
            "names": columns,
            "header": None,
            "skiprows": form.header,
            "skipinitialspace": form.spaced,
            "quoting": csv.QUOTE_NONE if form.quoting == "none" else csv.QUOTE_MINIMAL,
        },
        "target": target,
        "kind": fitted.target.kind,
        "model": fitted.name,
        "numbers": fitted.columns.numbers,
        "categories": fitted.columns.categories,
        "texts": fitted.columns.texts,
    }


def fit_as_in(settings: dict[str, Any]) -> None:
    """Read the table by pandas and fit the pipeline to four fifths of its rows; print rows, columns and the time."""
    import numpy as np
    import pandas as pd

    from upweight.cli.default_models import default_pipeline
    from upweight.cli.table_columns import TableColumns

    columns = TableColumns(settings["numbers"], settings["categories"], settings["texts"])
    frame = pd.read_csv(settings["path"], **settings["read"]).dropna(subset=[settings["target"]])
    frame[columns.categories] = frame[columns.categories].astype(object).fillna("missing").astype(str)
    frame[columns.texts] = frame[columns.texts].fillna("").astype(str)
    numbers = frame[columns.numbers].apply(pd.to_numeric, errors="coerce")
    frame[columns.numbers] = numbers
    rows = np.random.default_rng(0).permutation(len(frame))[round(0.2 * len(frame)) :]
    y = frame[settings["target"]].to_numpy()
    y = y.astype(float) if settings["kind"] == "number" else y.astype(str)
    pipeline = default_pipeline(settings["model"], columns, settings["kind"], 0)
    began = time.process_time()
    pipeline.fit(frame[columns.names].iloc[rows], y[rows])
    print(json.dumps([len(frame), len(columns.names), time.process_time() - began]))


if __name__ == "__main__":
    main()
