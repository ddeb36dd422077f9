"""An explanation on the terminal: a short summary of its queries, of its verification and of its warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from upweight.applications.audit_results import AuditedPrediction
from upweight.applications.explain import Explanation, agreed_on
from upweight.core.examples import Examples, Id
from upweight.core.printable import printable
from upweight.core.scores import Attribution, Unit
from upweight.evaluate.agreement import formatted
from upweight.evaluate.verify import Check
from upweight.report.page_limits import PageLimits
from upweight.report.table_cells import Cells
from upweight.report.terminal_overview import overview_summary
from upweight.report.wording import significant, wording

MAX_WIDTH = 78  # columns, so that lines fit the narrowest usual terminal
COLOURS = ("cyan", "magenta")  # of proponents, of opponents
MAX_DRAWN_SIDE = 8  # pixels; pictures up to this side are drawn


def summary(
    explanation: Explanation, queries: Sequence[Id], console: Console, k: int = 3, noun: str = "example"
) -> Group:
    """These queries with their k strongest proponents and opponents, and the result of the verification.

    `noun` is the word for one example. Small pictures are drawn if the console has colours for them.
    """
    parts: list[Padding] = []
    cells = Cells(explanation.train, explanation.queries, max_bytes=0)

    def add(part: RenderableType, above: int = 1) -> None:
        parts.append(Padding(part, (above, 0, 0, 2), expand=False))

    for query in queries:
        position = explanation.queries.ids.tolist().index(query)
        sides = (explanation.scores.proponents(query, k), explanation.scores.opponents(query, k))
        drawable = _can_draw(console) and _is_tiny(explanation.queries, query)
        add(_headline(explanation, position, noun))
        is_drawn = drawable and any(sides)
        add(
            _pictures(explanation, position, sides, noun)
            if is_drawn
            else _table(explanation, position, sides, noun, cells)
        )
        add(_meaning(explanation, position, sides))
        if explanation.audit is not None:
            add(_support(explanation.audit.of(query)), above=0)
    if explanation.check is not None:
        check = explanation.check
        retrained = f"Verdict: {check.judge()}. Checked by retraining: {check.judged_removals}."
        add(Text.assemble(("Are the scores right? ", "bold"), retrained))
        add(_agreement_table(explanation.check, noun), above=0)
    for number, warning in enumerate(explanation.warnings):
        add(Text(printable(f"! {warning}"), "yellow"), above=int(number == 0))
    return Group(*parts)


def print_explanation(
    explanation: Explanation,
    report: Path,
    queries: Sequence[Id],
    k: int = 3,
    noun: str = "example",
    overall: bool = False,
) -> None:
    """Print the summary of these queries on stdout, then where the report is and how long everything took.

    `overall`: also which training examples matter over all queries of the explanation.
    """
    console = Console(highlight=False)
    console.print(summary(explanation, queries, console, k, noun))
    if overall:
        console.print(overview_summary(explanation.overview(), explanation.train, k))
    m = len(explanation.queries)
    limit = PageLimits().queries
    shown = f"this {noun}" if m == 1 else f"{m} {noun}s" if m <= limit else f"the first {limit} of {m:,} {noun}s"
    contents = f"{shown} with scores; {explanation.seconds:.1f} s in total"
    address = (("\n  Report  ", "bold"), report.resolve().as_uri(), (f"\n          {contents}\n", "dim"))
    console.print(Text.assemble(*address), soft_wrap=True)  # an address that is not wrapped can be clicked


def _headline(explanation: Explanation, position: int, noun: str) -> Text:
    identifier = explanation.queries.ids[position].item()
    label, predictions = explanation.queries.label(identifier), explanation.scores.predictions
    line = Text.assemble((f"{noun.capitalize()} {_word(identifier)}", "bold"))
    if label is not None:
        line.append(f" is labelled {_word(label)}")
    if predictions is not None and predictions.predicted[position] is not None:
        line.append("; " if label is not None else ": ").append(
            f"the model predicts {_word(predictions.predicted[position])}", "bold"
        )
    of_predicted, of_label = explanation.probability(position)
    if of_predicted is not None:
        line.append(f" with probability {_percent(of_predicted)}")
    if of_label is not None and predictions is not None and predictions.predicted[position] != label:
        line.append(f", and {_word(label)} with {_percent(of_label)}")
    line.append(".")
    of_optimum = explanation.at_optimum(position)
    if of_optimum is not None:
        line.append(f" At the optimum of its training objective, where scores are taken: {_word(of_optimum[0])}")
        line.append("." if of_optimum[1] is None else f" with probability {_percent(of_optimum[1])}.")
    measured = explanation.scores.measured
    if measured is not None and not explanation.scores.measurement.startswith("−loss"):
        line.append(f" Its {printable(explanation.scores.measurement)}: {_word(float(measured[position]))}.")
    return line


def _table(
    explanation: Explanation, position: int, sides: Sequence[Sequence[Attribution]], noun: str, rows: Cells
) -> Text:
    """Proponents above opponents, one line per example; a line that is wider than the console is cut.

    Of the rows of a table, the columns that go most with the labels are shown.
    """
    label = explanation.queries.label(explanation.queries.ids[position].item())
    cells = [[_cells(explanation, position, a) for a in side] for side in sides]
    names = [[f"  {c[1]}" + (f"  labelled {c[0]}" if c[0] else "") for c in side] for side in cells]
    titles = _titles(explanation, noun)
    widths = [
        max(map(len, [*titles, *names[0], *names[1]])),
        max(len(c[2]) for side in cells for c in (*side, ("", "", "score"))),
        max(len(c[3]) for side in cells for c in (*side, ("", "", "", ""))),
    ]
    text = Text(no_wrap=True, overflow="ellipsis")
    for side, title in enumerate(titles):
        text.append(f"{title:<{widths[0]}}  ", f"bold {COLOURS[side]}").append(f"{'score':>{widths[1]}}", "dim")
        text.append(f"  probability of {_word(label)} without it" if widths[2] else "", "dim")
        for a, c, name in zip(sides[side], cells[side], names[side], strict=True):
            text.append(f"\n{name:<{widths[0]}}  ").append(f"{c[2]:>{widths[1]}}  ", COLOURS[side])
            text.append(f"{c[3]:<{widths[2]}}  ").append(_excerpt(explanation.train, a.id, rows), "dim")
        text.append("" if sides[side] else "\n  none").append("" if side else "\n")
    return text


def _pictures(explanation: Explanation, position: int, sides: Sequence[Sequence[Attribution]], noun: str) -> Table:
    """The query at twice the size; beside it the examples with label, id, score and the probability without each."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    grid.add_column(Text(f"{noun} {_word(explanation.queries.ids[position].item())}", "dim"), width=2 * MAX_DRAWN_SIDE)
    cells: list[RenderableType] = [_drawn(explanation.queries, explanation.queries.ids[position].item(), scale=2)]
    for side, title, colour in zip(sides, _titles(explanation, noun), COLOURS, strict=True):
        grid.add_column(Text(title, f"bold {colour}"), no_wrap=True)
        inner = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
        inner.add_row(*(_drawn(explanation.train, a.id) for a in side))
        captions = [(f"label {name}", *others) for name, *others in (_cells(explanation, position, a) for a in side)]
        for row, style in enumerate(("", "dim", colour, "dim")):
            inner.add_row(*(Text(caption[row], style) for caption in captions))
        cells.append(inner)
    grid.add_row(*cells)
    return grid


def _cells(explanation: Explanation, position: int, a: Attribution) -> tuple[str, str, str, str]:
    """Label, id, score (± its half width), and the probability of the query's label with and without the example."""
    without = explanation.without(position, a.score)
    before = explanation.probability(position)[1]
    change = "" if without is None or before is None else "→".join(_percents(before, without)) + "%"
    label = explanation.train.label(a.id)
    low, high = explanation.scores.interval(explanation.queries.ids[position].item(), a.id) or (0.0, 0.0)
    score = _signed(a.score) + (f" ± {significant((high - low) / 2, 2)}" if high > low else "")
    return "" if label is None else _word(label), f"#{_word(a.id)}", score, change


def _titles(explanation: Explanation, noun: str) -> tuple[str, str]:
    if explanation.scores.measurement.startswith("−loss"):
        return f"Training {noun}s that helped", f"Training {noun}s that harmed"
    return f"Training {noun}s that raised it", f"Training {noun}s that lowered it"


def _meaning(explanation: Explanation, position: int, sides: Sequence[Sequence[Attribution]]) -> Text:
    """The strongest score in a sentence that explains its sign and unit."""
    strongest = max((a for side in sides for a in side), key=lambda a: abs(a.score), default=None)
    if wording(explanation.scores).refuted:
        return Text("These scores do not predict retraining here: neither order nor size is confirmed (RANK).", "dim")
    if explanation.scores.unit == Unit.RANK or strongest is None:
        return Text("These scores have a sign and an order, but their size means nothing (RANK).", "dim")
    measurement, unit = explanation.scores.measurement, ""
    if measurement.endswith(")"):
        measurement, _, unit = measurement[:-1].rpartition(" (")
    lower = strongest.score > 0
    if measurement.startswith("−"):
        measurement, lower = measurement[1:], not lower
    unit = "" if "loss" in unit else unit  # a squared loss is measured in squared loss
    size = f"{significant(abs(strongest.score), 3)} {unit}".strip()
    sentence = (
        f"A score of {_signed(strongest.score)} means: if the model were trained without #{_word(strongest.id)}, its "
        f"{measurement} here would be {size} {'lower' if lower else 'higher'}"
    )
    without, before = explanation.without(position, strongest.score), explanation.probability(position)[1]
    if without is not None and before is not None:
        label = _word(explanation.queries.label(explanation.queries.ids[position].item()))
        now, then = _percents(before, without)
        sentence += f", and the probability of {label} would be {then}% instead of {now}%"
    return Text(printable(f"{sentence}."), "dim")


def _support(audited: AuditedPrediction) -> Text:
    """Whether the examples behind the prediction have to do with it."""
    if not audited.flagged:
        return Text(printable(f"Support: {audited.sentence}"), "dim")
    is_mistake = audited.label is not None and audited.predicted != audited.label
    whose = " These speak for the predicted label." if is_mistake else ""
    return Text.assemble(("Unusual support: ", "bold yellow"), printable(audited.sentence + whose))


def _agreement_table(check: Check, noun: str) -> Table:
    grid = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    grid.add_column("predicted vs actual effect (1 is perfect)")
    has_sizes = check.scores.unit == Unit.EFFECT
    for name in ("slope", "correlation", "pairs")[not has_sizes :]:
        grid.add_column(name, justify="right")
    kinds = {f"without one {noun}": agreed_on(check, "one"), f"without a group of {noun}s": agreed_on(check, "group")}
    for kind, agreement in kinds.items():
        if agreement is not None:
            slope = [formatted(agreement.slope)] if has_sizes else []
            grid.add_row(kind, *slope, formatted(agreement.pearson, 4), Text(str(agreement.count), "dim"))
    return grid


def _can_draw(console: Console) -> bool:
    return console.is_terminal and not console.no_color and console.color_system in ("truecolor", "256")


def _is_tiny(examples: Examples, identifier: Id) -> bool:
    shown = examples.preview(identifier)
    return shown.kind == "image" and np.ndim(shown.value) == 2 and max(np.shape(shown.value)) <= MAX_DRAWN_SIDE


def _drawn(examples: Examples, identifier: Id, scale: int = 1) -> Text:
    """A grey picture in half blocks: two pixels per character, the upper one in the foreground colour."""
    image = np.asarray(examples.preview(identifier).value, dtype=float)
    grey = np.rint(255 * (image - image.min()) / max(float(np.ptp(image)), 1e-12)).astype(int)
    grey = np.kron(np.pad(grey, ((0, len(grey) % 2), (0, 0))), np.ones((scale, scale), dtype=int))
    lines = []
    for upper, lower in zip(grey[::2], grey[1::2], strict=True):
        pairs = zip(upper.tolist(), lower.tolist(), strict=True)
        lines.append(Text.assemble(*(("▀", f"rgb({u},{u},{u}) on rgb({v},{v},{v})") for u, v in pairs)))
    return Text("\n").join(lines)


def _excerpt(examples: Examples, identifier: Id, rows: Cells) -> str:
    if rows:
        return printable(" ".join(rows.excerpts([identifier])[0].split()), keep="")[:MAX_WIDTH]
    shown = examples.preview(identifier)
    if shown.kind == "image":
        return ""
    if shown.kind == "text":
        return " ".join(str(shown.value).split())[:MAX_WIDTH]
    return ", ".join(f"{name} {_word(value)}" for name, value in shown.value)[:MAX_WIDTH]


def _word(value: Any) -> str:
    if not isinstance(value, float):
        return printable(str(value), keep="")
    return significant(value, 4)


def _signed(score: float) -> str:
    return significant(score, 3, "+")


def _percent(probability: float) -> str:
    return f"{_percents(probability, probability)[0]}%"


def _percents(before: float, after: float) -> tuple[str, str]:
    """Two probabilities in per cent, with as many decimals as it takes to distinguish them (at most three)."""
    shares = 100 * before, 100 * after
    digits = 0 if max(shares) >= 9.95 else 1
    while digits < 3 and before != after and f"{shares[0]:.{digits}f}" == f"{shares[1]:.{digits}f}":
        digits += 1
    least = 10.0 ** -max(digits, 1)
    first, second = (f"{p:.{digits}f}" if p >= least / 2 else f"<{least:.{max(digits, 1)}f}" for p in shares)
    return first, second
