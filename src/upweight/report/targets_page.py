"""The page of regression targets to review: one table, most suspicious first."""

from __future__ import annotations

from collections.abc import Sequence

from upweight.applications.suspects import Suspects
from upweight.report.effect_tables import MAX_ROWS, EffectRow, application_page, effect_table, signed
from upweight.report.previews import Album
from upweight.report.wording import count, regression_text


def _columns(suspects: Suspects) -> list[str]:
    predicted = "predicted" if suspects.held_out is None else "predicted without it"
    return ["target", predicted, "residual", "in units of the noise", *([] if suspects.harm is None else ["harm"])]


def targets_page(suspects: Suspects, description: Sequence[str] = ()) -> str:
    """The targets with their predictions by models that were not trained with them."""
    listed = suspects.as_dict()["suspects"]
    ids = [row["id"] for row in listed[:MAX_ROWS]]
    excerpts = Album(suspects.train, suspects.train).excerpts(ids) or [""] * len(ids)
    rows = [
        EffectRow(
            str(row["id"]),
            [
                str(regression_text(row["label"])),
                str(regression_text(row["suggested"])),
                signed(row["residual"]),
                f"{abs(row['residual']) / row['noise']:.1f}",
                *([] if suspects.harm is None else [signed(row["harm"])]),
            ],
            row["residual"],
            (-row["noise"], row["noise"]),
            excerpt=excerpt,
        )
        for row, excerpt in zip(listed[:MAX_ROWS], excerpts, strict=True)
    ]
    harm = f"Harm is the increase of the mean {suspects.measurement} on the evaluation set without the example."
    return application_page(
        "Are these targets right?",
        [f"{count(len(listed), 'target')} to review", f"of {len(suspects.train):,} training examples"],
        "A residual is the target minus its prediction by a model that was not trained with it."
        if suspects.held_out is not None
        else "A residual is the target minus its prediction by the model itself, which was trained with it.",
        [effect_table("Most suspicious first", "training example", _columns(suspects), "residual and noise", rows)],
        suspects.notes,
        [
            "The line is one standard deviation of the noise to either side, estimated from similar predictions.",
            *([] if suspects.harm is None else [harm]),
            *([f"Only the first {MAX_ROWS} are listed."] if len(listed) > MAX_ROWS else []),
        ],
        description,
    )
