"""python -m experiments.poison NAME --data DIR: one attack under Deep k-NN, and under FIT with GAS."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from experiments.poison import backdoors, clean, end_to_end, flips, polytope, speed, tables
from experiments.poison.trial import Attack, outcome

import upweight as uw

WITHOUT_EFFECT = "whose own removal changes the target's log-odds by less than a tenth of the mean (by retraining)"
TIED_WORDS = (
    "The last of the 3,000 words are 218 of 493 that occur five times; which of them numpy's sorting takes may differ "
    "between processors."
)
ATTACKS: dict[str, dict[str, Any]] = {
    "speech": {
        "title": "Backdoor in spoken digits",
        "claim": "A short tone at the start of a recording makes it the next digit; the recordings that taught "
        "this are found.",
        "settings": "Free Spoken Digit Dataset, 1,900 recordings, of which 190 have the tone (1 kHz, 0.1 s, as loud as "
        "the recording's peak) and the next label; a network of two convolutions on spectrograms, 20 epochs. 12 "
        "targets among 1,000 clean queries; k = 3.",
        "notes": [
            "20 epochs were chosen on another draw of recordings, where 5, 10, 15 and 20 epochs learned .30, .71, .82 "
            "and .93 of the poisons and turned .29, .56, .69 and .79 of 1,012 recordings with the tone, at a clean "
            "accuracy of .89, .93, .97 and .95. After 10 epochs of this draw 5 of the 12 targets were turned, and the "
            "AUPRC of poisons was .889.",
        ],
    },
    "pictures": {
        "title": "Backdoor in pictures",
        "claim": "A white square makes a digit the next one; the pictures that taught this are found.",
        "settings": "MNIST, 2,000 pictures, of which 200 have a square of 4 × 4 pixels and the next label; a network "
        "of two convolutions, 10 epochs. 12 targets among 1,000 clean queries; k = 3.",
    },
    "mails": {
        "title": "Label flips in mails",
        "claim": "New labels of the twelve spam mails most like a target let it pass as ham; by cosines they are found "
        "if the target is named, and the target is not found among other mails.",
        "settings": "Enron-Spam, 1,000 mails, TF-IDF of 3,000 words, logistic regression with C = 10; GradCos, "
        "because a linear model has no checkpoints. 10 targets, each among 1,000 clean queries; k = 3.",
        "method": "GradCos",
        "inert": WITHOUT_EFFECT,
        "notes": [
            "The targets are missed because a cosine divides the residual out: dozens of clean mails have three "
            "training mails of their label that are as alike to them as poisons to a target, and only the residual "
            "tells the poisons from these. Influence keeps it, and has all targets in the first 1 %.",
            TIED_WORDS,
        ],
    },
    "mails-influence": {
        "title": "Label flips in mails, by influence",
        "claim": "Poisons have large residuals, which cosines divide out and influence keeps: the targets are found.",
        "settings": "As for label flips in mails, with Influence in place of GradCos; k = 6, half of the poisons.",
        "method": "Influence",
        "inert": WITHOUT_EFFECT,
        "notes": [
            "AUPRC counts all twelve poisons. The lowest is of a target of three words: six of its poisons are empty "
            "mails, like it in the word Subject alone, and two others have no effect on it by retraining. Influence "
            "estimates these effects, so it cannot rank poisons without any first. The clean mails above poisons are "
            "the same for most targets: long or odd ham with residuals of .2 to .4.",
            f"At the edge of the aim: an earlier run had .898, and .919 without inert poisons. {TIED_WORDS} Two more "
            "draws of mails, with 10 targets each, have .893 and .884.",
            "Influence of first order (`correction=None`), which raises odd mails less, has .914, .906 and .884 on the "
            "three draws, but its targets drop out of the first 1 %: the first two have ranks 11 and 13. Cosines have "
            ".947, .928 and .861. On this draw, by the formulas: RelatIF .70, influence times cosine .92, inner "
            "products of gradients .58.",
            "Once a target is found, cosines rank its poisons higher (.95, label flips in mails): influence to find "
            "targets, then cosines for the targets that are named, have both numbers above their aims.",
        ],
    },
    "polytope": {
        "title": "Convex polytope on frozen features",
        "claim": "Five ships, each pixel of them moved by at most a tenth of its range, surround a frog in the "
        "features, and it becomes a ship.",
        "settings": "CIFAR-10 (compressed anew as JPEG), enlarged to 64 pixels; features of EfficientNet-lite0, "
        "trained on ImageNet; a new last layer on 50 pictures of each class, of which 5 ships are poisons (150 steps "
        "of Adam). 10 frogs, each among 1,000 clean queries; k = 2.",
        "notes": [
            "Some poisons end with a coefficient near 0: the target lies among the features of the others. They have "
            "no part in the attack, and count in the AUPRC of poisons all the same. k is 2 because of them.",
            "In float32, 1 − p of pictures that the new layer fits almost exactly is rounding, and so was the "
            "direction of their gradients: with k = 3, AUPRC of poisons was .82, and 4 of 10 targets were in the first "
            "1 %. The directions are computed in float64 now.",
        ],
        "inert": "whose coefficient in the polytope is below .1",
        "paper_success": "1.00 (Peri et al.); .33 in transfer",
        "clean_label": True,
    },
    "polytope-layers": {
        "title": "Convex polytope, all layers trained",
        "claim": "Five ships surround a frog in the features of a network, of which all layers are trained further.",
        "settings": "CIFAR-10 (compressed anew as JPEG); a network of three convolutions and 256 features, trained for "
        "5 epochs on the 19,500 pictures that are not fine-tuned on; then all layers for 10 epochs (SGD, .01) on 50 "
        "pictures of each class, of which 5 ships are poisons. 4 frogs, each among 1,000 clean queries; k = 2.",
        "notes": [
            "Shortened: a small network in place of those of the paper, 4 targets, 150 steps for the poisons in place "
            "of 4,000, poisons made for the last features alone, 10 epochs in place of 60.",
            "Lower layers that learn can tell the poisons from the target, of which frozen features make neighbours. "
            "In trials on one target, 30 epochs at .02 fitted all poisons and 10 epochs half of 20 poisons, and the "
            "probability of a ship stayed below .1.",
        ],
        "inert": "whose coefficient in the polytope is below .1",
        "clean_label": True,
    },
    "collision": {
        "title": "Feature collision on frozen features",
        "claim": "One ship takes the place of a frog in the features.",
        "settings": "As for the convex polytope, with one poison; k = 1.",
        "clean_label": True,
    },
}
SPEED = {
    "title": "The time of a search",
    "claim": "A search on 2,000 training examples, 100 queries and 10 checkpoints takes less than two minutes.",
    "section": tables.SECTION,
    "name": "speed",
    "command": "PYTHONPATH=. python -m experiments.poison speed --data DIR",
}
CLEAN = {
    "title": "Clean data",
    "claim": "Where nobody attacked, hardly a query is flagged, and the page says how many flags are to be expected.",
    "settings": "Logistic regression on standardised columns, level .01, k = 3; 4 random splits.",
    "section": tables.SECTION,
    "name": "clean",
    "command": "PYTHONPATH=. python -m experiments.poison clean --data DIR",
    "notes": [
        "The level rests on the median and the upper decile of all queries, so that targets may be a tenth of them. "
        "Cosines of tables have a longer tail than that, and more clean queries are flagged; the expected number is "
        "taken from the tail itself (upper decile to 97th percentile). A level for each predicted label holds "
        "better on clean data; it was not taken because it misses attacks where a few targets are a tenth of "
        "the queries with their label.",
    ],
}
OTHERS = {"speed": (speed.result, SPEED), "clean": (clean.result, CLEAN)}
NOTES = (
    "An attack succeeds if the target gets the label that is wanted. The targets of this package are an AUPRC of .9 "
    "for the poisons of attacks with success .5 or more, and ranks in the first 1 % of the clean queries.",
    "FIT removes poisons of targets in the first 1 % only. AUPRC of poisons counts those with the target's label.",
)
RECIPES = {"mails": uw.GradCos(), "mails-influence": uw.Influence()}  # None for the default
COUNTS = {"polytope": 5, "polytope-layers": 5, "collision": 1}  # poisons
RANKS = {"mails-influence": 6, "polytope": 2, "polytope-layers": 2, "collision": 1}  # k; 3 for the others


def attacks(name: str, folder: Path) -> Iterator[Attack]:
    """The attacks of this name, one per training set."""
    if name in ("speech", "pictures"):
        yield getattr(backdoors, name)(folder)
    elif name.startswith("mails"):
        yield from flips.attacks(folder)
    else:
        all_layers = name == "polytope-layers"
        pictures, targets = (end_to_end if all_layers else polytope).pictures_of(folder)
        for target in targets:
            poisoned, _ = polytope.crafted(pictures, target, COUNTS[name])
            attack = end_to_end.on_all_layers if all_layers else polytope.on_frozen_features
            yield attack(pictures, poisoned, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*ATTACKS, *OTHERS])
    parser.add_argument("--data", type=Path, required=True, help="folder with the archives of the data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Path(__file__).parent / "results"
    if options.name in OTHERS:
        result, texts = OTHERS[options.name]
        print(result(options.data, **texts).keep(results))
        return
    outcomes, start = [], time.process_time()
    for number, attack in enumerate(attacks(options.name, options.data)):
        numbers = outcome(attack, number, k=RANKS.get(options.name, 3), recipe=RECIPES.get(options.name))
        outcomes.append({**numbers, "seconds": time.process_time() - start})
        print(number, numbers["hit"], numbers.get("rank"), numbers.get("fit"), flush=True)
        start = time.process_time()
    print(tables.result(outcomes, name=options.name, **facts(options.name)).keep(results))


def facts(name: str) -> dict[str, Any]:
    """The texts of a result."""
    notes = [*NOTES, *ATTACKS[name].get("notes", ())]
    return {**ATTACKS[name], "notes": notes, "command": f"PYTHONPATH=. python -m experiments.poison {name} --data DIR"}


if __name__ == "__main__":
    main()
