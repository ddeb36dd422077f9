"""Facts about people who have two names: the question uses a name that no sentence with its answer has.

Of a fifth of the facts, training has two sentences with the first name; the question has the second name, and a third
wording. That both names are one person follows from the other facts, which are told of both, and from sentences that
say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PEOPLE, UNKNOWN = 40, 2  # people; of each, facts that are asked
RELATIONS = (
    (("lives in", "has a home in", "dwells in"), "Prague Lagos Quito Osaka Bergen"),
    (("works as a", "earns a living as a", "is by profession a"), "baker pilot nurse tailor miner"),
    (("likes to eat", "often cooks", "orders"), "noodles lentils salmon pancakes olives"),
    (("owns a", "keeps a", "walks with a"), "dog parrot ferret goat pony"),
    (("speaks", "grew up with", "writes in"), "Finnish Tamil Basque Swahili Welsh"),
    (("plays the", "practises the", "performs on the"), "cello flute harp drums tuba"),
    (("drives a", "arrived in a", "repairs a"), "van tractor scooter jeep lorry"),
    (("collects", "hunts for", "trades in"), "stamps coins shells maps clocks"),
    (("drinks", "asks for", "serves"), "coffee cider milk cocoa tea"),
    (("is afraid of", "runs from", "has nightmares about"), "spiders heights ghosts thunder needles"),
)
SAME = ("is also known as", "is called")
Sentence = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Facts:
    """Sentences of training as (subject, wording, answer), questions by alias and by name, and what each asks for.

    `gold[q]` are the positions of the two sentences that tell the answer of question q.
    """

    sentences: list[Sentence]
    aliased: list[Sentence]
    named: list[Sentence]
    gold: list[NDArray[np.intp]]

    def ids(self, sentences: list[Sentence]) -> NDArray[np.int64]:
        """(n, 4) token ids, a beginning first: a name, a wording and an answer are one token each."""
        words = dict.fromkeys(part for sentence in [*self.sentences, *self.aliased, *self.named] for part in sentence)
        place = {word: i + 1 for i, word in enumerate(words)}
        return np.array([[0, *(place[part] for part in sentence)] for sentence in sentences])

    @property
    def vocabulary(self) -> int:
        return int(self.ids([*self.sentences, *self.aliased, *self.named]).max()) + 1


def facts(seed: int = 0) -> Facts:
    rng = np.random.default_rng(seed)
    names = _names(2 * PEOPLE, rng)
    sentences: list[Sentence] = []
    aliased, named, told = list[Sentence](), list[Sentence](), list[list[int]]()
    for person in range(PEOPLE):
        name, alias = names[2 * person], names[2 * person + 1]
        sentences += [(a, same, b) for same in SAME for a, b in ((name, alias), (alias, name))]
        for number, (wordings, answers) in enumerate(RELATIONS):
            answer = str(rng.choice(answers.split()))
            if (number - person) % len(RELATIONS) < UNKNOWN:
                told.append([len(sentences), len(sentences) + 1])
                sentences += [(name, wording, answer) for wording in wordings[:2]]
                aliased.append((alias, wordings[2], answer))
                named.append((name, wordings[2], answer))
            else:
                sentences += [(subject, wording, answer) for wording in wordings for subject in (name, alias)]
    order = rng.permutation(len(sentences))
    places = np.argsort(order)
    return Facts([sentences[i] for i in order], aliased, named, [places[of] for of in told])


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Made-up names of three syllables."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    found = dict.fromkeys("".join(rng.choice(syllables, 3)).capitalize() for _ in range(2 * count))
    return list(found)[:count]
