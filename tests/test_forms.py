"""Forms that save only over what the user has seen."""

import datetime as dt
import json
from decimal import Decimal

import pytest
from django import forms
from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile
from django.forms import modelform_factory, modelformset_factory
from django.utils import timezone

from idempotency import StaleObject
from idempotency.forms import VersionedForm
from idempotency.forms.values import NOTHING
from idempotency.forms.versioned import versioned
from tests.models import Account, Effect, Invoice, Lease, Letter, Sheet, Ticket

pytestmark = pytest.mark.django_db

SheetForm = modelform_factory(Sheet, form=VersionedForm, fields=["cells"])
FIELDS = [
    "name",
    "amount",
    "due",
    "sent_at",
    "urgent",
    "kind",
    "terms",
    "scan",
    "ticket",
    "effects",
]
InvoiceForm = modelform_factory(Invoice, form=VersionedForm, fields=FIELDS)


@pytest.fixture
def sheet():
    return Sheet.objects.create(name="S", cells=1)


def shown(instance, form=SheetForm):
    """Give what a browser has of the form: the values of all its fields."""
    return sent_back(form(instance=instance))


def sent_back(form):
    sent = {}
    for bound in form:
        value = bound.value()
        if isinstance(bound.field, forms.FileField) or value in (None, False):
            continue
        many = isinstance(value, list)
        sent[bound.html_name] = [getattr(one, "pk", one) for one in value] if many else value
    return sent


def again(instance):
    return type(instance).objects.get(pk=instance.pk)


def codes(form):
    return [error.code for error in form.non_field_errors().as_data()]


def test_what_was_seen_is_saved(sheet):
    data = shown(sheet)

    form = SheetForm({**data, "cells": 2}, instance=again(sheet))
    form.save()

    assert form.changed_data == ["cells"]
    assert not form.stale
    assert form.changes == ()
    assert "seen_version" not in form.cleaned_data
    assert (again(sheet).cells, again(sheet).rev) == (2, 2)


def test_a_stale_form_saves_nothing_and_shows_both(sheet):
    data = shown(sheet)
    Sheet.objects.update(cells=7)

    form = SheetForm({**data, "cells": "2"}, instance=again(sheet))

    assert not form.is_valid()
    assert form.stale
    assert codes(form) == ["stale"]
    (change,) = form.changes
    assert (change.name, change.label, change.stored, change.yours) == ("cells", "Cells", "7", "2")
    assert (change.changed_by_others, change.changed_by_you, change.differs) == (True, True, True)
    with pytest.raises(ValueError, match="could not be changed"):
        form.save()
    assert again(sheet).cells == 7


def test_changes_can_be_asked_for_first(sheet):
    data = shown(sheet)
    Sheet.objects.update(cells=7)

    (change,) = SheetForm({**data, "cells": "2"}, instance=again(sheet)).changes

    assert (change.stored, change.yours) == ("7", "2")


def test_saving_again_overwrites_what_was_shown(sheet):
    data = shown(sheet)
    Sheet.objects.update(cells=7)
    stale = SheetForm({**data, "cells": "2"}, instance=again(sheet))
    assert not stale.is_valid()

    form = SheetForm(sent_back(stale), instance=again(sheet))
    form.save()

    assert again(sheet).cells == 2


def test_saving_again_is_stale_after_one_more_change(sheet):
    data = shown(sheet)
    Sheet.objects.update(cells=7)
    stale = SheetForm({**data, "cells": "2"}, instance=again(sheet))
    assert not stale.is_valid()
    second = sent_back(stale)
    Sheet.objects.update(cells=8)

    form = SheetForm(second, instance=again(sheet))

    assert codes(form) == ["stale"]
    assert form.changes[0].stored == "8"


def test_other_errors_leave_the_version_as_it_was_seen(sheet):
    data = shown(sheet)
    wrong = SheetForm({**data, "cells": "many"}, instance=again(sheet))
    assert not wrong.is_valid()
    Sheet.objects.update(cells=7)

    form = SheetForm({**sent_back(wrong), "cells": 2}, instance=again(sheet))

    assert codes(form) == ["stale"]


def test_an_invalid_value_is_shown_as_it_was_sent(sheet):
    data = shown(sheet)
    Sheet.objects.update(cells=7)

    form = SheetForm({**data, "cells": "many"}, instance=again(sheet))

    assert form.changes[0].yours == "many"
    assert set(form.errors) == {"__all__", "cells"}


@pytest.mark.parametrize("token", [None, ""])
def test_a_form_without_its_version_is_refused(sheet, token):
    form = SheetForm({"cells": 2, "seen_version": token}, instance=sheet)

    assert codes(form) == ["missing"]
    assert "Reload the page" in form.non_field_errors()[0]
    assert 'value="' not in str(form["seen_version"])


@pytest.mark.parametrize(
    "token",
    ["null", "abc", "a:b:c", "\udc80", "\0", signing.dumps([]), signing.dumps(["a"] * 4)],
    ids=["null", "word", "three parts", "surrogate", "zero", "signed nothing", "signed words"],
)
def test_a_version_that_is_not_ours_is_refused(sheet, token):
    form = SheetForm({"cells": 2, "seen_version": token}, instance=sheet)

    assert codes(form) == ["invalid"]
    assert 'value="' not in str(form["seen_version"])


def test_a_tampered_version_is_refused(sheet):
    token = shown(sheet)["seen_version"]

    for wrong in (token[:-1] + ("a" if token[-1] != "a" else "b"), "x" + token):
        form = SheetForm({"cells": 2, "seen_version": wrong}, instance=again(sheet))
        assert codes(form) == ["invalid"]


def test_the_version_of_another_object_is_refused(sheet):
    other = Sheet.objects.create(name="T")
    account = Account.objects.create(name="S")
    tokens = [
        shown(other)["seen_version"],
        shown(account, modelform_factory(Account, VersionedForm, ["name"]))["seen_version"],
    ]

    for token in tokens:
        form = SheetForm({"cells": 2, "seen_version": token}, instance=again(sheet))
        assert codes(form) == ["invalid"]


def test_an_unsaved_object_has_no_version():
    form = SheetForm({"cells": 2}, instance=Sheet(name="N"))

    assert "seen_version" not in form.fields
    assert form.save().rev == 1
    assert SheetForm().changes == ()


def test_a_model_without_a_version_is_refused():
    with pytest.raises(TypeError, match="Letter has no version"):
        modelform_factory(Letter, form=VersionedForm, fields=["name"])()


def test_the_version_may_be_in_the_table_of_the_parent():
    form = modelform_factory(Lease, form=VersionedForm, fields=["note"])
    lease = Lease.objects.create(name="L")
    data = shown(lease, form)
    Account.objects.filter(pk=lease.pk).update(note="theirs")

    stale = form({**data, "note": "mine"}, instance=again(lease))

    assert codes(stale) == ["stale"]


def test_a_change_after_the_validation_is_refused(sheet):
    form = SheetForm({**shown(sheet), "cells": 2}, instance=again(sheet))
    assert form.is_valid()
    Sheet.objects.update(cells=7)

    with pytest.raises(StaleObject):
        form.save()


def test_the_hidden_field_is_hidden_and_not_kept_by_browsers(sheet):
    html = str(SheetForm(instance=sheet)["seen_version"])

    assert 'type="hidden"' in html
    assert 'autocomplete="off"' in html


def test_a_clean_that_calls_no_other_does_not_switch_the_guard_off(sheet):
    class Careless(VersionedForm):
        class Meta:
            model = Sheet
            fields = ("cells",)

        def clean(self):
            return self.cleaned_data

    assert codes(Careless({"cells": 2}, instance=sheet)) == ["missing"]


def test_versioned_adds_the_guard_once():
    class Plain(forms.ModelForm):
        extra = forms.CharField(required=False)

        class Meta:
            model = Sheet
            fields = ("cells",)

    guarded = versioned(Plain)

    assert issubclass(guarded, (VersionedForm, Plain))
    assert list(guarded.base_fields) == ["cells", "extra", "seen_version"]
    assert versioned(guarded) is guarded


# What compares


@pytest.fixture
def invoice():
    invoice = Invoice.objects.create(
        name="I ",
        amount=Decimal("10.50"),
        due=dt.date(2026, 3, 1),
        sent_at=dt.datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=dt.UTC),
        kind="goods",
        terms={"b": 1, "a": [2, 1]},
        ticket=Ticket.objects.create(number="T-1"),
    )
    invoice.effects.set([Effect.objects.create(name=name) for name in "ab"])
    return invoice


def stale_changes(invoice, **data):
    """Give the changes of a form sent with *data*, after somebody has counted the version up."""
    before = shown(invoice, InvoiceForm)
    again(invoice).touch()
    form = InvoiceForm({**before, **data}, instance=again(invoice))
    return {change.name: change for change in form.changes}


def test_what_is_sent_back_as_shown_has_not_changed(invoice):
    invoice = again(invoice)

    with timezone.override("Asia/Tokyo"):
        changes = stale_changes(invoice)

    assert set(changes) == set(FIELDS)
    assert not [c for c in changes.values() if c.changed_by_you or c.changed_by_others]
    assert not [c for c in changes.values() if c.differs]


@pytest.mark.parametrize(
    ("name", "sent", "stored", "yours"),
    [
        ("name", "J", "I ", "J"),
        ("amount", "11", "10.50", "11"),
        ("amount", "NaN", "10.50", "NaN"),
        ("due", "2026-03-02", "March 1, 2026", "March 2, 2026"),
        ("due", "", "March 1, 2026", NOTHING),
        ("sent_at", "2026-03-01 13:00", "March 1, 2026, 12:30 p.m.", "March 1, 2026, 1 p.m."),
        ("urgent", "on", "No", "Yes"),
        ("kind", "work", "Goods", "Work"),
        ("kind", "none", "Goods", "none"),
        ("terms", "[]", '{"b": 1, "a": [2, 1]}', "[]"),
        ("terms", "{", '{"b": 1, "a": [2, 1]}', "{"),
        ("ticket", "", "T-1", NOTHING),
        ("ticket", "x", "T-1", "x"),
        ("ticket", "9" * 30, "T-1", "9" * 30),
        ("effects", [], "a, b", NOTHING),
        ("effects", ["0"], "a, b", "0"),
    ],
)
def test_a_change_is_told_in_words(invoice, name, sent, stored, yours):
    changes = stale_changes(again(invoice), **{name: sent})

    change = changes.pop(name)
    # JSON has no order of its keys, and not every database keeps it.
    assert change.stored in (stored, '{"a": [2, 1], "b": 1}')
    assert change.yours == yours
    assert change.changed_by_you
    assert not change.changed_by_others
    assert not [other for other in changes.values() if other.changed_by_you]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("amount", "10.5"),
        ("terms", json.dumps({"a": [2, 1], "b": 1})),
        ("name", " I"),
    ],
)
def test_the_same_value_written_in_another_way_is_no_change(invoice, name, sent):
    assert not stale_changes(again(invoice), **{name: sent})[name].changed_by_you


def test_the_order_of_related_objects_is_no_change(invoice):
    keys = [effect.pk for effect in invoice.effects.order_by("-pk")]

    assert not stale_changes(again(invoice), effects=keys)["effects"].changed_by_you


def test_a_new_file_is_a_change(invoice):
    before = shown(again(invoice), InvoiceForm)
    again(invoice).touch()
    scan = SimpleUploadedFile("a.txt", b"a")

    form = InvoiceForm(before, {"scan": scan}, instance=again(invoice))

    change = next(change for change in form.changes if change.name == "scan")
    assert (change.stored, change.yours, change.changed_by_you) == (NOTHING, "a.txt", True)


def test_who_changed_what_is_told_apart(invoice):
    before = shown(again(invoice), InvoiceForm)
    other = again(invoice)
    other.amount, other.urgent, other.ticket = 20, True, Ticket.objects.create(number="T-2")
    other.save()

    form = InvoiceForm({**before, "amount": "30", "name": "mine"}, instance=again(invoice))

    who = {c.name: (c.changed_by_others, c.changed_by_you) for c in form.changes}
    assert {name: two for name, two in who.items() if any(two)} == {
        "amount": (True, True),
        "urgent": (True, False),
        "ticket": (True, False),
        "name": (False, True),
    }
    assert form.changed_data == ["name", "amount"]


def test_groups_of_choices_are_searched_for_labels(sheet):
    class Grouped(VersionedForm):
        cells = forms.TypedChoiceField(
            coerce=int, choices=[("few", [(1, "one")]), ("more", [(2, "two")]), (10, "ten")]
        )

        class Meta:
            model = Sheet
            fields = ("cells",)

    Sheet.objects.update(cells=10)
    data = shown(again(sheet), Grouped)
    again(sheet).touch()

    form = Grouped({**data, "cells": "2"}, instance=again(sheet))

    assert (form.changes[0].stored, form.changes[0].yours) == ("ten", "two")
    assert not form.changes[0].changed_by_others


def test_a_secret_is_not_told(invoice):
    secret = modelform_factory(
        Invoice, form=VersionedForm, fields=["name"], widgets={"name": forms.PasswordInput}
    )
    before = shown(again(invoice), secret)
    Invoice.objects.update(name="theirs")

    form = secret({**before, "name": "mine"}, instance=again(invoice))

    assert codes(form) == ["stale"]
    assert form.changes == ()
    assert signing.loads(before["seen_version"], salt="idempotency.forms")[-1] == {}


def test_a_stale_form_reads_only_the_related_objects_that_it_names(
    invoice, django_assert_num_queries
):
    Ticket.objects.bulk_create([Ticket(number=f"U-{n}") for n in range(3)])
    before = shown(again(invoice), InvoiceForm)
    again(invoice).touch()
    form = InvoiceForm(before, instance=again(invoice))
    assert not form.is_valid()

    # Of the ticket and of the effects: what is stored, and what was sent.
    with django_assert_num_queries(4):
        changes = form.changes

    assert len(changes) == len(FIELDS)


def test_disabled_fields_are_not_compared(invoice):
    class Half(InvoiceForm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.fields["name"].disabled = True

    before = shown(again(invoice), Half)
    Invoice.objects.update(name="theirs")

    form = Half(before, instance=again(invoice))

    assert form.stale
    assert "name" not in [change.name for change in form.changes]


def test_rows_of_a_formset_are_guarded(sheet):
    rows = modelformset_factory(Sheet, form=SheetForm, extra=0, can_delete=True)
    data = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1}
    data |= sent_back(rows(queryset=Sheet.objects.all()).forms[0])
    Sheet.objects.update(cells=7)

    formset = rows({**data, "form-cells": 2}, queryset=Sheet.objects.all())
    stale = formset.forms[0]

    assert not formset.is_valid()
    assert codes(stale) == ["stale"]
    assert [change.name for change in stale.changes if change.changed_by_you] == []
