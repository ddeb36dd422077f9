"""Older keywords: what they become, what the warning says, and what stays visible of the function."""

import dataclasses
import inspect
import warnings
from dataclasses import dataclass, replace

import pytest

import upweight as uw
from upweight.core.deprecation import BuiltBy, RenamedAttribute, ReplacedBy, accept_old_fields, accept_old_keywords
from upweight.core.progress import accepts_arguments, adapt_old_progress, as_progress, rename_stages


@dataclass(frozen=True)
class Place:
    street: str = "none"
    number: int = 0


def _place(current, **fields):
    return replace(current or Place(), **fields)


@accept_old_keywords(
    {
        "label": ReplacedBy("name"),
        "street": ReplacedBy("place", "street"),
        "house": ReplacedBy("place", "number", lambda n: 10 * n, "10 …"),
    },
    {"place": BuiltBy("uw.Place", _place)},
    positional=("street",),
)
def send(what, name="nobody", *, place=None):
    """Send it."""
    return what, name, place


def test_older_keywords_become_todays_and_the_warning_says_what_to_write():
    with pytest.warns(DeprecationWarning) as warned:
        assert send("letter", label="ann", street="high", house=2) == ("letter", "ann", Place("high", 20))
    (warning,) = warned
    assert str(warning.message) == (
        "uw.send: label=, street=, house= are deprecated; write name=…, place=uw.Place(street=…, number=10 …)"
    )
    assert warning.filename == __file__


def test_todays_calls_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert send("letter", "ann", place=Place("low")) == ("letter", "ann", Place("low"))


def test_fields_of_a_value_that_is_passed_are_replaced():
    with pytest.warns(DeprecationWarning):
        assert send("letter", place=Place("low", 7), street="high")[2] == Place("high", 7)


def test_the_warning_keeps_the_value_that_is_passed_and_names_the_class_of_a_constructor():
    class Parcel:
        @accept_old_keywords(
            {"street": ReplacedBy("place", "street")}, {"place": BuiltBy("uw.Place", _place, "'none'")}
        )
        def __init__(self, *, place=None):
            self.place = place

    with pytest.warns(DeprecationWarning, match=r"uw.Parcel: street= is deprecated; write place=uw.Place\('none', str"):
        assert Parcel(street="high").place == Place("high")
    with pytest.warns(DeprecationWarning, match=r"write place=uw.Place\(…, street=…\)"):
        assert Parcel(place=Place("low", 7), street="high").place == Place("high", 7)


def test_an_older_keyword_by_position():
    with pytest.warns(DeprecationWarning, match=r"street= is deprecated; write place=uw.Place\(street=…\)"):
        assert send("letter", "ann", "high") == ("letter", "ann", Place("high"))
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments"):
        send("letter", "ann", "high", "more")


def test_both_names_of_one_keyword_are_refused():
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="got name= and its older name label="):
        send("letter", name="ann", label="bob")
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match="got name= and its older name label="):
        send("letter", "ann", label="bob")


def test_the_signature_is_todays():
    assert list(inspect.signature(send).parameters) == ["what", "name", "place"]
    assert send.__doc__ == "Send it." and send.__name__ == "send"


def test_a_dataclass_takes_older_names_of_its_fields():
    @accept_old_fields({"nr": ReplacedBy("number")})
    @dataclass(frozen=True, kw_only=True)
    class Seat:
        row: str = "a"
        number: int = 1

    with pytest.warns(DeprecationWarning, match=r"uw.Seat: nr= is deprecated; write number=…") as warned:
        assert Seat(nr=3) == Seat(number=3) and warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace(Seat(row="b"), number=4) == Seat(row="b", number=4)


def test_progress_of_two_arguments_is_called_without_the_stage():
    reports = []
    with pytest.warns(DeprecationWarning, match=r"uw.tune: write progress\(stage, done, total\)"):
        as_progress(lambda done, total: reports.append((done, total)), "tune")("fit", 1, 2)
    adapt_old_progress(lambda done, total: reports.append((done, total)))("fit", 2, 2)
    assert reports == [(1, 2), (2, 2)] and adapt_old_progress(None) is None and rename_stages({}, None) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_progress(lambda *news: reports.append(news), "tune")("fit", 1, 2)
        as_progress(None, "tune")("fit", 1, 2)
    assert reports[-1] == ("fit", 1, 2)


def test_stages_are_renamed():
    reports = []
    renamed = rename_stages({"retrain": "verify"}, lambda *news: reports.append(news))
    renamed("retrain", 1, 2)
    renamed("fit", 1, 1)
    assert reports == [("verify", 1, 2), ("fit", 1, 1)]


def test_how_many_arguments_a_function_takes():
    assert (
        accepts_arguments(lambda a, b: 0, 2)
        and not accepts_arguments(lambda a, b: 0, 3)
        and accepts_arguments(print, 3)
        and accepts_arguments(max, 3)
    )


def renamed_attributes():
    for name in uw.__all__:
        try:
            public = getattr(uw, name)
        except ModuleNotFoundError:  # it needs an extra that is not installed
            continue
        for base in getattr(public, "__mro__", ()):
            for old, attribute in vars(base).items():
                if isinstance(attribute, RenamedAttribute):
                    yield base, old, attribute.name


@pytest.mark.parametrize(("owner", "old", "current"), sorted(set(renamed_attributes()), key=str))
def test_a_renamed_attribute_reads_the_current_one_and_warns(owner, old, current):
    fields = {field.name for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
    assert current in fields | {*vars(owner)} or owner in (uw.Fitted, uw.Segment)
    instance = object.__new__(type("Example", (), {old: RenamedAttribute(current), current: "value"}))
    with pytest.warns(DeprecationWarning, match=rf"Example.{old} is deprecated; write .{current}") as warned:
        assert getattr(instance, old) == "value"
    assert warned[0].filename == __file__


def test_renamed_fields_are_accepted_by_name():
    with pytest.warns(DeprecationWarning, match="found= is deprecated; write recall="):
        detection = uw.Detection(auc=0.5, shares=(0.1,), found=(0.2,), planted=1, examples=10)
    with pytest.warns(DeprecationWarning, match=r"Detection.found is deprecated"):
        assert detection.found == detection.recall == (0.2,)


@pytest.mark.parametrize(
    ("old", "current"), [("Found", "Detection"), ("Moved", "NewtonSteps"), ("found_at", "detection_rates")]
)
def test_renamed_public_names_are_the_current_ones(old, current):
    with pytest.warns(DeprecationWarning, match=rf"uw.{old} is deprecated; write uw.{current}") as warned:
        assert getattr(uw, old) is getattr(uw, current)
    assert warned[0].filename == __file__ and old not in uw.__all__


def test_a_subclass_may_still_define_a_method_by_its_old_name():
    with pytest.warns(DeprecationWarning, match="Exact defines settled, which is deprecated; call it reoptimised"):

        class Exact(uw.ExactCurvature):
            def settled(self):
                return "optimum"

    assert Exact.reoptimised is Exact.settled and "reoptimised" not in Exact.__abstractmethods__
