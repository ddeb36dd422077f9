"""How the records of a text are laid out: separator, quotation marks, spaces, found out from its first lines."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from upweight.cli.table_files.records import Records, read_records
from upweight.cli.table_files.table_format import SEPARATOR_NAMES, Quoting, TableFormat

SEPARATORS = (",", ";", "\t", "|")
LATE_SEPARATORS = (" ",)  # tried only if no other separator fits
UNIT_SEPARATOR = "\x1f"  # of a table of one column, if its texts have all others
SAMPLE_CHARACTERS = 200_000
MAX_UNEVEN_SHARE = 0.2  # share of the records that may have another number of fields; each is refused with its line
MAX_UNEVEN_BELOW_NAMES = 0.5
COMMENT = "#"
DIRECTIVE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # the first line that Excel writes and reads
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


class Fit(NamedTuple):
    """How well a layout fits the sample: number of columns, share of other records, records, and the layout."""

    columns: int
    uneven: float
    rows: list[list[str]]
    form: TableFormat


def lay_out(text: str, form: TableFormat, separator: str | None, name: str) -> TableFormat:
    """`form` with separator, quoting and spaces that fit the text.

    Raises:
        ValueError: several separators fit equally well; the message names `--sep`.
    """
    sample, is_whole = _sample(text)
    if separator is not None:
        return _best_fit(sample, is_whole, replace(form, separator=separator)).form
    for candidates in (SEPARATORS, LATE_SEPARATORS):
        fits = [_best_fit(sample, is_whole, replace(form, separator=each)) for each in candidates]
        even = [fit for fit in fits if fit.columns > 1 and fit.uneven == 0]
        if even:
            return _cleanest(even, name).form
        if candidates == SEPARATORS:
            nearly = [fit for fit in fits if fit.columns > 1 and fit.uneven <= _max_uneven_share(fit)]
    if nearly:
        return min(nearly, key=lambda fit: fit.uneven).form
    unused = next(each for each in (*SEPARATORS, UNIT_SEPARATOR) if each not in text or each == UNIT_SEPARATOR)
    return _best_fit(sample, is_whole, replace(form, separator=unused)).form  # one column


def _max_uneven_share(fit: Fit) -> float:
    """More records may be uneven if the first one, which may have the names, has as many fields as most."""
    return MAX_UNEVEN_BELOW_NAMES if fit.rows and len(fit.rows[0]) == fit.columns > 2 else MAX_UNEVEN_SHARE


def _sample(text: str) -> tuple[str, bool]:
    """The first lines, and whether they are all."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text, True
    end = text.rfind("\n", 0, SAMPLE_CHARACTERS) + 1
    return (text[:end], False) if end else (text, True)


def _best_fit(sample: str, is_whole: bool, form: TableFormat) -> Fit:
    """The fit of the first quoting and spacing under which all records have as many fields, or else of the best one."""
    form = replace(form, spaced=_is_spaced(sample, form.separator))
    quotings: tuple[Quoting, ...] = ("doubled", "escaped", "none") if '"' in sample else ("doubled",)
    fits = [_fit(sample, is_whole, replace(form, quoting=quoting)) for quoting in quotings]
    if '"' in sample and not form.spaced and form.separator != " ":
        fits.insert(1, _fit(sample, is_whole, replace(form, spaced=True)))
    plain = fits[-1]
    if plain.form.quoting == "none" and plain.columns > 1 and plain.uneven == 0:
        # Every line is a record: a quotation mark that joined lines would have to hide just the right separators.
        fits = [fit for fit in fits if len(fit.rows) == len(plain.rows)]
    return min(fits, key=lambda fit: fit.uneven)


def _fit(sample: str, is_whole: bool, form: TableFormat) -> Fit:
    listed = Records([], [])
    failed = False
    try:
        read_records(sample, form, listed)
    except ValueError:
        failed = is_whole or len(listed.fields) < 2  # the end of a part may lie inside of a field
    rows = [record for record in listed.fields if any(record) and not record[0].startswith(COMMENT)]
    if not rows or failed:
        return Fit(0, 1.0, rows, form)
    columns = Counter(map(len, rows)).most_common(1)[0][0]
    is_short = columns > 2 and len(rows) > 2 and len(rows[0]) == columns - 1  # rows have names or a last separator
    body = rows[1:] if is_short else rows
    return Fit(columns, sum(len(row) != columns for row in body) / len(body), rows, form)


def _is_spaced(sample: str, separator: str) -> bool:
    """Whether every separator after the first line is followed by a space, or by the end of its line."""
    if separator == " ":
        return False
    lines = sample.splitlines()
    body = re.sub(r'"[^"]*"', '""', "\n".join(lines[1:] if len(lines) > 1 else lines))
    return f"{separator} " in body and not re.search(rf"{re.escape(separator)}(?![ \n]|$)", body)


def _cleanest(fits: list[Fit], name: str) -> Fit:
    """The separator after which the fewest fields have another one of these separators inside."""
    if len(fits) == 1:
        return fits[0]
    separators = {fit.form.separator for fit in fits}
    shares = [_unclean_share(fit, separators - {fit.form.separator}) for fit in fits]
    best = min(shares)
    if shares.count(best) > 1:
        names = " and ".join(SEPARATOR_NAMES[fit.form.separator] for fit in fits)
        raise ValueError(f"{name} can be read with {names} between its columns; say which with --sep")
    return fits[shares.index(best)]


def _unclean_share(fit: Fit, others: set[str]) -> float:
    fields = [field for row in fit.rows for field in row]
    unclean = sum(
        any(other in field for other in others) and not DECIMAL_COMMA.fullmatch(field.strip()) for field in fields
    )
    return unclean / len(fields)
