"""A work list is divided among ranks without a gap, and a rank waits for the files of the others."""

from __future__ import annotations

import pytest

from upweight.engines.work_list import Patience, Rank, WorkList, run_as_rank, run_here


class Pieces(WorkList):
    """Pieces in memory; `late` is finished by another rank after this many checks."""

    phases = ("first", "second")

    def __init__(self, done=(), late=()):
        self.done, self.late, self.made = set(done), list(late), []

    def count(self, phase):
        return {"first": 5, "second": 1}[phase]

    def missing(self, phase):
        if self.late:
            self.done.add(self.late.pop(0))
        return [number for number in range(self.count(phase)) if (phase, number) not in self.done]

    def commit(self, phase, number):
        self.made.append((phase, number))
        self.done.add((phase, number))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("missing", [[0, 1, 2, 3, 4], [2, 3], []])
def test_ranks_share_the_missing_pieces_whoever_looks_first(count, missing):
    left, parts = list(missing), []
    for number in range(count):
        parts.append(Rank(number, count).own(left))
        left = [piece for piece in left if piece not in parts[-1]]  # the next rank looks after this one is finished
    assert left == [] and sorted(number for part in parts for number in part) == missing


def test_one_process_makes_what_is_missing_in_order_and_reports_it():
    pieces, reports = Pieces(done=[("first", 1)]), []
    run_here(pieces, lambda *report: reports.append(report))
    assert pieces.made == [*(("first", number) for number in (0, 2, 3, 4)), ("second", 0)]
    assert reports[:2] == [("first", 1, 5), ("first", 2, 5)] and reports[-1] == ("second", 1, 1)


def test_a_rank_waits_for_the_pieces_of_the_others_before_the_next_phase():
    pieces = Pieces(late=[("x", 0)] * 9 + [("first", 0), ("first", 2), ("first", 4), ("second", 0)])
    run_as_rank(pieces, Rank(1, 2), patience=Patience(longest_pause=0.01))
    assert pieces.made == [("first", 1), ("first", 3)] and pieces.late == []


def test_a_rank_that_nobody_answers_gives_up_and_names_the_piece():
    with pytest.raises(TimeoutError, match="for first 1, which another rank should have made"):
        run_as_rank(Pieces(), Rank(0, 2), patience=Patience(seconds=0.02))


def test_a_rank_is_read_from_the_variables_of_torchrun():
    assert Rank.of_process({}) == Rank(0, 1)
    assert Rank.of_process({"RANK": "1", "WORLD_SIZE": "3"}) == Rank(1, 3)
    with pytest.raises(ValueError, match="RANK < WORLD_SIZE"):
        Rank.of_process({"RANK": "3", "WORLD_SIZE": "3"})
