"""State charts show every way that a state can go."""

import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import models
from django.test.utils import isolate_apps
from django_fsm import GET_STATE, RETURN_VALUE, FSMField, FSMIntegerField

from idempotency.transitions import TransitionsMixin, state_chart, transition
from tests.models import Account, Contract, Lease, Letter, Task


def is_due(bill):
    return True


class IsOpen:
    def __call__(self, bill):
        return True


@pytest.fixture(autouse=True)
def apart():
    with isolate_apps("tests"):
        yield


def made(state, **methods):
    """Give a model with one state and these transitions."""
    members = {"state": state, "__module__": "tests.models", "__str__": lambda self: ""}
    return type("Bill", (TransitionsMixin, models.Model), {**members, **methods})


def step(**options):
    @transition("state", **options)
    def method(self):
        return None

    return method


def named(name, **options):
    method = step(**options)
    method.__name__ = method.__wrapped__.__name__ = name
    return {name: method}


def lines_of(chart):
    first, *lines = chart.splitlines()
    assert first == "stateDiagram-v2"
    return [line.strip() for line in lines]


def test_chart_of_a_row_from_its_first_state_to_its_last():
    assert state_chart(Lease) == (
        "stateDiagram-v2\n    [*] --> new\n    new --> sent : send\n    sent --> [*]\n"
    )


def test_transitions_are_in_the_order_of_their_declaration_with_their_guards():
    assert lines_of(state_chart(Contract)) == [
        "[*] --> new",
        "new --> sent : send [is_sealed]",
        "new --> lost : lose",
        "sent --> lost : lose",
        "read --> [*]",
        "lost --> [*]",
        "kept --> [*]",
    ]


@pytest.fixture
def letter():
    return lines_of(state_chart(Letter, "state"))


def test_any_source_leads_from_every_state_but_the_target(letter):
    assert [line for line in letter if line.endswith(": lose")] == [
        f"{source} --> lost : lose" for source in ("new", "sent", "read", "kept")
    ]
    assert [line for line in letter if line.endswith(": keep")] == [
        f"{source} --> kept : keep" for source in ("new", "sent", "read", "lost")
    ]


def test_transition_to_nowhere_comes_back(letter):
    assert "new --> new : weigh" in letter


def test_state_for_failures_is_marked(letter):
    assert "new --> sent : risk" in letter
    assert "new --> lost : risk (on error)" in letter


@pytest.mark.parametrize("name", ["settle", "sort"])
def test_each_target_that_a_body_may_tell_is_drawn(letter, name):
    assert [line for line in letter if name in line] == [
        f"new --> read : {name}",
        f"new --> kept : {name}",
    ]


def test_each_source_of_one_method_has_its_target(letter):
    assert [line for line in letter if "file" in line] == [
        "new --> lost : file",
        "sent --> kept : file",
    ]


def test_source_by_name_goes_before_any():
    bill = made(
        FSMField(default="new"),
        **{"pay": transition("state", source="new", target="paid")(step(target="odd"))},
    )

    lines = lines_of(state_chart(bill))

    assert [line for line in lines if line.startswith("new")] == ["new --> paid : method"]
    assert "paid --> odd : method" not in lines  # In a target of its own, it is repeated.


@pytest.mark.parametrize("target", [RETURN_VALUE(), GET_STATE(lambda bill: "paid")])
def test_target_that_nobody_declares_is_a_question(target):
    bill = made(FSMField(default="new"), **named("pay", source="new", target=target))

    assert lines_of(state_chart(bill)) == [
        'state "?" as s1',
        "[*] --> new",
        "new --> s1 : pay",
    ]


def test_states_that_are_no_plain_words_get_a_name():
    bill = made(
        FSMField(default="in progress"),
        **named("stop", source=["in progress", "end", "s1"], target="half-way"),
    )

    assert lines_of(state_chart(bill)) == [
        'state "in progress" as s2',
        'state "end" as s3',
        'state "half-way" as s4',
        "[*] --> s2",
        "s2 --> s4 : stop",
        "s3 --> s4 : stop",
        "s1 --> s4 : stop",
        "s4 --> [*]",
    ]


def test_states_may_be_numbers_or_empty():
    bill = made(FSMField(default=""), **named("pay", source="", target="paid"))

    assert lines_of(state_chart(Letter, "weight"))[-4:] == [
        "s1 --> s2 : load",
        "s2 --> s3 : unload",
        "s2 --> s1 : unload (on error)",
        "s3 --> [*]",
    ]
    assert lines_of(state_chart(bill))[0] == 'state "(empty)" as s1'


def test_labels_of_choices_describe_their_states():
    class State(models.IntegerChoices):
        NEW = 1, "new"
        PAID = 2, 'Paid: "all" of it;\nreally'

    bill = made(
        FSMIntegerField(default=State.NEW, choices=State),
        **named("pay", source=State.NEW, target=State.PAID),
    )

    assert lines_of(state_chart(bill)) == [
        'state "1" as s1',
        "s1 : new",
        'state "2" as s2',
        "s2 : Paid#58; #34;all#34; of it#59; really",
        "[*] --> s1",
        "s1 --> s2 : pay",
        "s2 --> [*]",
    ]


def test_guards_without_a_name_are_named_by_their_kind():
    guards = [is_due, IsOpen(), lambda bill: True]
    bill = made(FSMField(), **named("pay", source="new", target="paid", conditions=guards))

    assert lines_of(state_chart(bill)) == [
        "new --> paid : pay [is_due, IsOpen, #60;lambda#62;]",
        "paid --> [*]",
    ]


def test_sources_of_a_set_are_in_one_order():
    bill = made(FSMField(), **named("pay", source={"c", "a", "b"}, target="paid"))

    assert [line[0] for line in lines_of(state_chart(bill))] == ["a", "b", "c", "p"]


def test_field_may_be_given_itself():
    field = Task._meta.get_field("mood")

    assert state_chart(Task, field) == state_chart(Task, "mood")


@pytest.mark.parametrize(
    ("model", "field", "words"),
    [
        (Account, None, "tests.Account has no state field."),
        (Task, None, "tests.Task has several state fields, choose one: stage, mood."),
        (Task, "name", "'name' is no state field of tests.Task; it has: stage, mood."),
    ],
)
def test_field_that_cannot_be_told_is_asked_for(model, field, words):
    with pytest.raises(LookupError, match=words):
        state_chart(model, field)


# The command.


def drawn(*arguments):
    written = StringIO()
    call_command("state_chart", *arguments, stdout=written)
    return written.getvalue()


def test_command_prints_the_chart():
    assert drawn("tests.Lease") == state_chart(Lease)
    assert drawn("tests.task", "--field", "mood") == state_chart(Task, "mood")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tests.Nothing"], "'tests' doesn't have a 'Nothing' model"),
        (["nowhere.Lease"], "No installed app with label 'nowhere'"),
        (["Lease"], "Name the app and the model: orders.Order, not 'Lease'"),
        (["tests.Account"], "has no state field"),
        (["tests.Task"], "several state fields, choose one: stage, mood"),
        (["tests.Task", "--field", "name"], "'name' is no state field"),
    ],
)
def test_command_tells_what_it_cannot_draw(arguments, words):
    with pytest.raises(CommandError, match=words):
        drawn(*arguments)


def test_command_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "django_fsm", None)
    for name in ("", ".chart", ".declaring", ".states"):
        monkeypatch.delitem(sys.modules, f"idempotency.transitions{name}")

    with pytest.raises(CommandError, match=r'pip install "django-idempotency\[fsm\]"'):
        drawn("tests.Lease")
