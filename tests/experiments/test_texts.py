"""Texts: the net is the encoder's own last block, the planted heuristic has its rate, and no name leaks."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from experiments.texts import facts, han, inference, recall  # noqa: E402
from experiments.texts.encoder import Classifier, Encoder  # noqa: E402


def test_the_classifier_computes_the_last_block_of_the_encoder() -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    net = transformers.BertModel(transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **size)).eval()
    encoder = Encoder(8)
    encoder.__dict__["parts"] = net, None
    ids = torch.randint(0, 30, (5, 8))
    mask = (torch.arange(8) < torch.tensor([8, 3, 1, 5, 7])[:, None]).long()
    classifier = Classifier(net.encoder.layer[-1])
    classifier.head = torch.nn.Identity()
    with torch.no_grad():
        found = classifier(encoder.below(encoder.embedded({"input_ids": ids}), mask))
        expected = net(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_heuristic_holds_at_the_planted_rate_and_overlaps_are_counted() -> None:
    pairs, labels, overlaps = inference.pairs(2000, 0.9)
    of_full = labels[overlaps == 1]
    assert len(set(pairs)) == 2000 and abs(of_full.mean() - 0.9) < 0.04
    for (premise, hypothesis), overlap in zip(pairs, overlaps, strict=True):
        content = hypothesis.split()[1], hypothesis.split()[2], hypothesis.split()[4]
        assert sum(word in premise.split() for word in content) / 3 == pytest.approx(overlap)
    assert not inference.pairs(50, 0.0, seed=1, full=1.0)[1].any()


def test_what_follows_follows_from_subject_verb_and_object() -> None:
    pairs, labels, overlaps = inference.pairs(500, 0.5)
    same = {**inference.NOUNS, **inference.VERBS}
    for (premise, hypothesis), follows in zip(pairs, labels, strict=True):
        said, asked = premise.split(), hypothesis.split()
        triple, words = (said[1], said[5], said[7]), (asked[1], asked[2], asked[4])
        assert follows == all(b in (a, same[a]) for a, b in zip(triple, words, strict=True))
    assert 0 < labels[overlaps < 1].mean() < 0.4


def test_no_sentence_that_tells_an_answer_shares_a_name_with_the_question() -> None:
    known = facts.facts()
    for alias, name, gold in zip(known.aliased, known.named, known.gold, strict=True):
        told = [known.sentences[i] for i in gold]
        assert all(subject == name[0] and answer == alias[2] for subject, _, answer in told)
        assert not {alias[0], alias[1]} & {part for sentence in told for part in sentence}
        wordings = next(wordings for wordings, _ in facts.RELATIONS if alias[1] in wordings)
        same = [s for s in known.sentences if s[0] in (alias[0], name[0]) and s[1] in wordings]
        assert sorted(same) == sorted(told)  # the fact is told in no other way


def test_ranks_count_ties_with_other_sentences_alone() -> None:
    scores, gold = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 1.0, 2.0]]), [np.array([1, 2]), np.array([0, 2])]
    assert recall.reciprocal_rank(scores, gold) == pytest.approx((1 + 1 / 3) / 2)


def test_words_are_chosen_by_their_saliency() -> None:
    chosen = han.places(np.array([0.5, -0.4, 0.1, -0.02, 0.2]), np.random.default_rng(0))
    assert chosen["lowest"] == 1 and chosen["highest"] == 0 and chosen["median"] == 2 and chosen["nearest zero"] == 3
