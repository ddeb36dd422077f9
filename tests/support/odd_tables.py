"""Texts of tables that are odd in one way and have one meaning, each with the columns that it means."""

from __future__ import annotations

from datetime import date
from typing import Any

Column = list[Any]  # int, float, bool, str, date or None


def odd_texts(text: str, columns: dict[str, Column]) -> dict[str, tuple[str, dict[str, Column]]]:
    """Name → (text, columns); some are made from a plain CSV text with these columns."""
    return {
        "no-end-of-line": (text.rstrip("\n"), columns),
        "blank-lines": (text.replace("\n", "\n\n"), columns),
        "blank-lines-at-the-end": (text + "\n\n  \n", columns),
        "mac-line-ends": (text.replace("\n", "\r"), columns),
        "trailing-separators": (text.replace("\n", ",\n"), columns),
        "trailing-separators-below-the-header": (text.replace("\n", ",\n").replace(",\n", "\n", 1), columns),
        "comments": ("# from a lab\n# 2020, May\n" + text, columns),
        "comment-between": (text.replace("\n", "\n# so far\n", 2), columns),
        "directive": ("sep=;\n" + text.replace(",", ";"), columns),
        "spaced": (text.replace(",", ", "), columns),
        "spaced-below-the-header": (text.replace(",", ", ").replace(", ", ",", 3), columns),
        "spaced-header": (text.replace(",", ", ", 3), columns),
        "spaced-quoted": ('a, b\n1, "x, y"\n2, "z"\n3, "x, y"\n', {"a": [1, 2, 3], "b": ["x, y", "z", "x, y"]}),
        "escaped": ('a,b\n1,"x \\"y\\", z"\n2,"w"\n', {"a": [1, 2], "b": ['x "y", z', "w"]}),
        "marks-are-text": (
            'kind\ttext\nham\t"Hello\nspam\tthere" and\nham\tyes\n',
            {"kind": ["ham", "spam", "ham"], "text": ['"Hello', 'there" and', "yes"]},
        ),
        "inches": ('size,n\n5" pipe,1\n6" pipe,2\n', {"size": ['5" pipe', '6" pipe'], "n": [1, 2]}),
        "long-field": (f"a,b\n1,{'x' * 300_000}\n2,y\n", {"a": [1, 2], "b": ["x" * 300_000, "y"]}),
        "wide": (
            "\n".join(",".join(f"{start}{i}" for i in range(900)) for start in ("c", "1", "2")),
            {f"c{i}": [int(f"1{i}"), int(f"2{i}")] for i in range(900)},
        ),
        "one-column": ("n\n1\n2\n3\n", {"n": [1, 2, 3]}),
        "one-column-with-a-hole": ("n\n1\n\n3\n", {"n": [1, None, 3]}),
        "one-column-of-texts": (
            "remark\nGood, I think\nbad\nso, so, so\n", {"remark": ["Good, I think", "bad", "so, so, so"]},
        ),
        "one-row": ("a,b,c\n1,2.5,x\n", {"a": [1], "b": [2.5], "c": ["x"]}),
        "only-a-header": ("a,b,c\n", {"a": [], "b": [], "c": []}),
        "an-empty-column": ("a,b,c\n1,,x\n2,,y\n", {"a": [1, 2], "b": [None, None], "c": ["x", "y"]}),
        "an-empty-last-column": ("a,c,b\n1,x,\n2,y,\n", {"a": [1, 2], "c": ["x", "y"], "b": [None, None]}),
        "a-row-of-holes": ("a,b\n1,x\n,\n3,y\n", {"a": [1, None, 3], "b": ["x", None, "y"]}),
        "names-come-twice": ("a,a,b\n1,2,3\n4,5,6\n", {"a": [1, 4], "a (2)": [2, 5], "b": [3, 6]}),
        "a-column-without-a-name": (",a\n0,x\n1,y\n", {"column_1": [0, 1], "a": ["x", "y"]}),
        "names-of-rows": ("a,b\nr1,1,2\nr2,3,4\n", {"column_1": ["r1", "r2"], "a": [1, 3], "b": [2, 4]}),
        "spaces-in-names": (" a , b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
        "padded-numbers": ("a,b\n  1,  2.50\n 22, 13.00\n", {"a": [1, 22], "b": [2.5, 13.0]}),
        "blank-cells": ("a,b\n1,x\n ,y\n3, \n", {"a": [1, None, 3], "b": ["x", "y", None]}),
        "question-marks": ("a,b\n1,?\n?,x\n3,y\n", {"a": [1, None, 3], "b": ["?", "x", "y"]}),
        "words-in-numbers": (
            "a,b\n1.5,x\nNA,y\nnull,z\nNaN,x\n", {"a": [1.5, None, None, None], "b": ["x", "y", "z", "x"]},
        ),
        "infinite": ("a,b\n1.5,x\n-inf,y\ninf,z\n", {"a": [1.5, float("-inf"), float("inf")], "b": ["x", "y", "z"]}),
        "exponents": ("a,b\n1e3,+4\n-2.5E-3,-5\n", {"a": [1000.0, -0.0025], "b": [4, -5]}),
        "whole-decimals": ("a,b\n1.0,x\n2.0,y\n", {"a": [1.0, 2.0], "b": ["x", "y"]}),
        "truths": ("a,b\nTRUE,1\nFALSE,2\nTRUE,3\n", {"a": [True, False, True], "b": [1, 2, 3]}),
        "truths-with-a-hole": ("a,b\ntrue,1\n,2\nfalse,3\n", {"a": [True, None, False], "b": [1, 2, 3]}),
        "truth-or-none": ("a,b\nTrue,1\nNone,2\nFalse,3\n", {"a": ["True", "None", "False"], "b": [1, 2, 3]}),
        "mixed": ("a,b\n1,x\ntwo,y\n3,z\n", {"a": ["1", "two", "3"], "b": ["x", "y", "z"]}),
        "thousands": ('a,b\n"1,234",x\n"12,345,678",y\n', {"a": [1234, 12345678], "b": ["x", "y"]}),
        "one-point-two-three-four": ("a;b\n1.234;x\n12.345;y\n", {"a": [1.234, 12.345], "b": ["x", "y"]}),
        "decimal-commas-and-points-of-thousands": (
            "a;b\n1.234,5;0,5\n2,5;1,25\n", {"a": [1234.5, 2.5], "b": [0.5, 1.25]},
        ),
        "printed": ("a   |label\n----|-----\n1.5 |x\n2.5 |y\n", {"a": [1.5, 2.5], "label": ["x    ".strip(), "y"]}),
        "maybe-thousands": ('a,b\n"1,234",x\n"5,678",y\n', {"a": ["1,234", "5,678"], "b": ["x", "y"]}),
        "points-of-thousands-alone": ("a;b\n1.234.567;2,5\n1.000;1\n", {"a": [1234567, 1000], "b": [2.5, 1.0]}),
        "apostrophes": ("a,b\n1'234.5,x\n999,y\n", {"a": [1234.5, 999.0], "b": ["x", "y"]}),
        "thin-spaces": ("a;b\n1\u202f234,5;x\n-2,25;y\n", {"a": [1234.5, -2.25], "b": ["x", "y"]}),
        "units": ("a;b\n70,5 kg;x\n81,25 kg;y\n", {"a": [70.5, 81.25], "b": ["x", "y"]}),
        "shares": ("a,b\n7%,x\n-8.5%,y\n,z\n", {"a": [7.0, -8.5, None], "b": ["x", "y", "z"]}),
        "money": ('a,b\n"$1,234.50",x\n-$3,y\nNA,z\n', {"a": [1234.5, -3.0, None], "b": ["x", "y", "z"]}),
        "parentheses": ('a,b\n"(1,234.50)",x\n3.00,y\n', {"a": [-1234.5, 3.0], "b": ["x", "y"]}),
        "all-in-parentheses": ("a,b\n(1),x\n(2),y\n", {"a": ["(1)", "(2)"], "b": ["x", "y"]}),
        "durations": ("a,b\n2:10:19,x\n1:05:00,y\n", {"a": ["2:10:19", "1:05:00"], "b": ["x", "y"]}),
        "nulls-of-databases": ("a\tb\n1.5\tx\n\\N\t\\N\n", {"a": [1.5, None], "b": ["x", "\\N"]}),
        "codes-with-letters": ("a,b\nA1,3g\nA2,4G\n", {"a": ["A1", "A2"], "b": ["3g", "4G"]}),
        "two-units": ("a,b\n1 kg,x\n2 g,y\n", {"a": ["1 kg", "2 g"], "b": ["x", "y"]}),
        "numbers-of-versions": ("a,b\n1.2.3,x\n1.10.0,y\n", {"a": ["1.2.3", "1.10.0"], "b": ["x", "y"]}),
        "decimal-commas-in-marks": ('a,b\n"1,5",x\n"0,25",y\n', {"a": [1.5, 0.25], "b": ["x", "y"]}),
        "more-digits-than-fit": (
            "a,b\n123456789012345678901,x\n2,y\n", {"a": ["123456789012345678901", "2"], "b": ["x", "y"]},
        ),
        "underscores": ("a,b\n1_000,x\n2_000,y\n", {"a": ["1_000", "2_000"], "b": ["x", "y"]}),
        "days-first": (
            "a,b\n31.01.2020,1\n05.02.2020,2\n", {"a": [date(2020, 1, 31), date(2020, 2, 5)], "b": [1, 2]},
        ),
        "months-first": ("a,b\n1/31/2020,1\n2/5/2020,2\n", {"a": [date(2020, 1, 31), date(2020, 2, 5)], "b": [1, 2]}),
        "day-or-month-first": ("a,b\n01/02/2020,1\n03/04/2020,2\n", {"a": ["01/02/2020", "03/04/2020"], "b": [1, 2]}),
        "named-months": (
            "a,b\n31-Jan-2020,1\n05-Feb-2020,2\n", {"a": [date(2020, 1, 31), date(2020, 2, 5)], "b": [1, 2]},
        ),
        "no-such-day": ("a,b\n2020-02-30,1\n2020-01-01,2\n", {"a": ["2020-02-30", "2020-01-01"], "b": [1, 2]}),
        "years-as-names": (
            "country,id,2019\nA,1,5.5\nB,2,6.5\n", {"country": ["A", "B"], "id": [1, 2], "2019": [5.5, 6.5]},
        ),
        "no-header-of-words": (
            "no\tgo\nyes\tcome\nno\tgo on\n", {"column_1": ["no", "yes", "no"], "column_2": ["go", "come", "go on"]},
        ),
        "runs-of-spaces": (
            ' a   b  label\n 1  2.5  "x  y"\n30 4.5  no  \n', {"a": [1, 30], "b": [2.5, 4.5], "label": ["x  y", "no"]},
        ),
        "end-of-file-mark": ("a,label\n1,x\n2,y\n\x1a", {"a": [1, 2], "label": ["x", "y"]}),
        "spaces": ("a b label\n1 2.5 yes\n3 4.5 no\n", {"a": [1, 3], "b": [2.5, 4.5], "label": ["yes", "no"]}),
    }  # fmt: skip
