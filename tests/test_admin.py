"""The admin: nothing is overwritten unseen, and a transition takes effect once."""

import re
import subprocess
import sys
import threading

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection, connections
from django.forms import modelformset_factory
from django.test import Client
from django.test.html import parse_html
from django.urls import reverse

from idempotency.admin.confirming import Seen
from idempotency.admin.offers import find_step
from idempotency.admin.versions import RowForm, RowFormSet
from idempotency.models import IdempotencyRecord, TransitionLog
from idempotency.transitions import log_of
from tests.conftest import Gate, elsewhere, standing_at
from tests.models import Account, Contract, Effect, Invoice, Lease, Letter, Sheet, Stage, Task
from tests.sites import InvoiceAdmin, SheetAdmin, site

pytestmark = pytest.mark.django_db
User = get_user_model()


class Desk:
    """A person at the admin: opens pages, and sends their forms as a browser does."""

    def __init__(self, user):
        self.user = user
        self.client = Client()
        self.client.force_login(user)

    def open(self, url):
        self.page = self.client.get(url)
        return self.page

    def send(self, form=-1, to=None, **data):
        """Send a form of the page that is open, with all of its fields."""
        sent = {**self.fields(form), **data}
        sent = {name: value for name, value in sent.items() if value is not None}
        self.page = self.client.post(to or self.page.request["PATH_INFO"], sent)
        return self.page

    def fields(self, form=-1):
        return fields_of(forms_of(self.page.text)[form])

    def follow(self):
        """Open the page to which the last answer leads, and give what it says."""
        assert self.page.status_code == 302, re.findall(r"errorlist.*|<title>.*", self.page.text)
        self.open(self.page["Location"])
        return re.findall(r'<ul class="messagelist">(.*?)</ul>', self.page.text, re.S)[0]


def forms_of(html):
    """Give the forms of the page's content; the one that logs out comes first."""
    return re.findall(r"<form.*?</form>", html, re.S)


def fields_of(form):
    found = {}

    def walk(element):
        if isinstance(element, str):
            return
        attributes = dict(element.attributes)
        name, kind = attributes.get("name"), attributes.get("type")
        if element.name == "textarea":
            found[name] = "".join(map(str, element.children))
        elif element.name == "select":
            chosen = [dict(c.attributes) for c in element.children if not isinstance(c, str)]
            values = [c["value"] for c in chosen if "selected" in c]
            found[name] = values if "multiple" in attributes else "".join(values[:1])
        elif name and kind == "checkbox" and "checked" in attributes:
            found[name] = attributes.get("value", "on")
        elif element.name == "input" and name and kind not in ("submit", "file", "checkbox"):
            found[name] = attributes.get("value", "")
        for child in element.children:
            walk(child)

    walk(parse_html(form))
    return found


@pytest.fixture
def boss():
    return Desk(User.objects.create_superuser("boss"))


@pytest.fixture
def clerk():
    user = User.objects.create_user("clerk", is_staff=True)
    codenames = [f"{do}_{what}" for do in ("view", "change") for what in ("invoice", "letter")]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return Desk(user)


@pytest.fixture
def invoice():
    return Invoice.objects.create(name="I-1", amount=10)


def page_of(instance, page="change", *more):
    opts = instance._meta
    name = f"admin:{opts.app_label}_{opts.model_name}_{page}"
    args = () if page == "changelist" else (instance.pk, *more)
    return reverse(name, args=args, current_app="desk")


def transition_of(instance, name):
    return page_of(instance, "transition", name)


def again(instance):
    return type(instance).objects.get(pk=instance.pk)


def effects():
    return [effect.name.split()[0] for effect in Effect.objects.order_by("pk")]


# Versions in the change form


def test_a_change_is_saved(boss, invoice):
    boss.open(page_of(invoice))

    boss.send(name="I-2")

    assert "was changed successfully" in boss.follow()
    assert again(invoice).name == "I-2"
    assert LogEntry.objects.get().get_change_message() == "Changed Name."


def test_a_stale_change_shows_both_and_saves_nothing(boss, invoice):
    boss.open(page_of(invoice))
    Invoice.objects.update(amount=99)

    page = boss.send(name="mine")

    assert page.status_code == 200
    assert page.text.count("has been changed since you opened it") == 1
    table = re.search(r"<section.*?idempotency-stale.*?</section>", page.text, re.S)[0]
    assert [
        tuple(re.findall(r'idempotency-value">(.*?)</span>', row))
        for row in re.findall(r"<tr.*?</tr>", table, re.S)[1:3]
    ] == [("I-1", "mine"), ("99.00", "10.00")]
    assert table.count("changed meanwhile") == 1
    assert table.count("changed by you") == 1
    assert "replaces the stored values of the 2 fields that differ" in table
    assert again(invoice).name == "I-1"
    assert not LogEntry.objects.exists()


def test_saving_the_stale_page_overwrites_knowingly(boss, invoice):
    boss.open(page_of(invoice))
    Invoice.objects.update(amount=99)
    boss.send(name="mine")

    boss.send()

    assert "was changed successfully" in boss.follow()
    assert (again(invoice).name, again(invoice).amount) == ("mine", 10)


def test_a_change_elsewhere_is_told_as_such(boss, invoice):
    boss.open(page_of(invoice))
    again(invoice).touch()

    page = boss.send()

    assert "None of these fields differs" in page.text


@pytest.mark.parametrize("token", [None, "null", "", "abc"])
def test_a_change_without_its_version_is_refused(boss, invoice, token):
    boss.open(page_of(invoice))

    page = boss.send(name="mine", seen_version=token)

    assert "Reload the page" in page.text
    assert again(invoice).name == "I-1"
    assert boss.fields()["seen_version"] == ""


def test_the_version_of_another_object_is_refused(boss, invoice):
    boss.open(page_of(Invoice.objects.create(name="I-2")))
    other = boss.fields()["seen_version"]
    boss.open(page_of(invoice))

    page = boss.send(name="mine", seen_version=other)

    assert "was made for another object" in page.text
    assert again(invoice).name == "I-1"


@pytest.fixture
def meanwhile(monkeypatch):
    """Have another change the row between validation and save, as often as is said."""

    def arrange(owner, hook, model, times=1, **values):
        original, left = getattr(owner, hook), [None] * times

        def hooked(self, request, *args, **options):
            if left:
                left.pop()
                elsewhere(lambda: model.objects.update(**values))
            return original(self, request, *args, **options)

        monkeypatch.setattr(owner, hook, hooked, raising=False)

    return arrange


with_two_writers = pytest.mark.skipif(
    "sqlite" in connection.settings_dict["ENGINE"], reason="One writer at a time."
)


@with_two_writers
@pytest.mark.django_db(transaction=True)
def test_a_change_in_the_moment_of_saving_shows_the_stale_page(boss, invoice, meanwhile):
    meanwhile(InvoiceAdmin, "save_model", Invoice, amount=99)
    boss.open(page_of(invoice))

    page = boss.send(name="mine")

    assert page.status_code == 200
    assert "has been changed since you opened it" in page.text
    assert "99.00" in page.text
    assert again(invoice).name == "I-1"


@with_two_writers
@pytest.mark.django_db(transaction=True)
def test_a_change_in_the_moment_of_saving_a_list_is_told(boss, meanwhile):
    sheet = Sheet.objects.create(name="S", cells=1)
    meanwhile(SheetAdmin, "save_model", Sheet, cells=7)
    boss.open(page_of(sheet, "changelist"))

    boss.send(_save="Save", **{"form-0-cells": "2"})

    assert "changed in the very moment" in boss.follow()
    assert boss.fields()["form-0-cells"] == "7"


@with_two_writers
@pytest.mark.django_db(transaction=True)
def test_a_change_in_the_moment_of_deleting_is_told(boss, meanwhile):
    sheet = Sheet.objects.create(name="S", cells=1)
    meanwhile(SheetAdmin, "delete_model", Sheet, cells=7)
    boss.open(page_of(sheet, "delete"))

    boss.send()

    assert "changed in the very moment" in boss.follow()
    assert again(sheet).cells == 7
    assert not LogEntry.objects.exists()


def test_a_save_that_stays_stale_is_told(boss, invoice, monkeypatch):
    def save_model(self, request, obj, form, change):
        Invoice.objects.update(amount=99)
        obj.save()

    monkeypatch.setattr(InvoiceAdmin, "save_model", save_model, raising=False)
    boss.open(page_of(invoice))

    boss.send(name="mine")

    assert "changed in the very moment" in boss.follow()
    assert again(invoice).name == "I-1"


def test_an_object_is_added_without_a_version(boss):
    page = boss.open(reverse("admin:tests_sheet_add", current_app="desk"))
    assert "seen_version" not in page.text

    boss.send(name="N", cells=3)

    assert "was added successfully" in boss.follow()
    assert Sheet.objects.get().rev == 1


def test_who_may_only_look_gets_no_version(invoice):
    user = User.objects.create_user("guest", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_invoice"))
    guest = Desk(user)

    page = guest.open(page_of(invoice))

    assert page.status_code == 200
    assert "seen_version" not in page.text
    assert "/transition/" not in page.text


# Versions in the list


@pytest.fixture
def sheets():
    return [Sheet.objects.create(name=name, cells=1) for name in "AB"]


def test_rows_of_a_list_are_saved(boss, sheets):
    boss.open(page_of(sheets[0], "changelist"))
    keys = boss.fields()

    boss.send(_save="Save", **{"form-0-cells": "2"})

    assert {"form-0-seen_version", "form-0-name"} <= keys.keys()
    assert "1 sheet was changed" in boss.follow()
    assert sorted(Sheet.objects.values_list("cells", "rev")) == [(1, 1), (2, 2)]


def test_a_stale_row_shows_its_error_and_nothing_is_written(boss, sheets):
    boss.open(page_of(sheets[0], "changelist"))
    first = Sheet.objects.get(name=boss.fields()["form-0-name"])
    Sheet.objects.filter(pk=first.pk).update(cells=7)

    page = boss.send(_save="Save", **{"form-0-cells": "2", "form-1-cells": "3"})

    assert page.status_code == 200
    assert page.text.count("has been changed since you opened the list") == 1
    assert "Stored now is Cells: 7." in page.text
    assert sorted(Sheet.objects.values_list("cells", flat=True)) == [1, 7]

    boss.send(_save="Save")

    assert "2 sheets were changed" in boss.follow()
    assert sorted(Sheet.objects.values_list("cells", flat=True)) == [2, 3]


def test_a_new_row_of_a_formset_has_no_version(sheets):
    rows = modelformset_factory(Sheet, RowForm, formset=RowFormSet, fields=["cells"], extra=1)

    assert "seen_version" not in str(rows().forms[-1])


def test_a_row_that_was_left_alone_keeps_what_others_wrote(boss, sheets):
    boss.open(page_of(sheets[0], "changelist"))
    second = Sheet.objects.get(name=boss.fields()["form-1-name"])
    Sheet.objects.filter(pk=second.pk).update(cells=7)

    boss.send(_save="Save", **{"form-0-cells": "2"})

    assert "1 sheet was changed" in boss.follow()
    assert again(second).cells == 7


def test_a_row_that_changed_elsewhere_says_so(boss, invoice):
    boss.open(page_of(invoice, "changelist"))
    Invoice.objects.update(name="theirs")

    page = boss.send(_save="Save", **{"form-0-amount": "20"})

    assert "in no column that can be edited here" in page.text
    assert again(invoice).amount == 10


@pytest.mark.parametrize("token", [None, "null", "", "abc"])
def test_a_row_without_its_version_is_refused(boss, sheets, token):
    boss.open(page_of(sheets[0], "changelist"))

    page = boss.send(_save="Save", **{"form-0-cells": "2", "form-0-seen_version": token})

    assert "Reload the page" in page.text
    assert set(Sheet.objects.values_list("cells", flat=True)) == {1}


# Buttons of transitions


def buttons(page):
    return re.findall(r'idempotency-transition"><a href="[^"]*/transition/(\w+)/', page.text)


def test_states_are_read_only(boss, invoice):
    boss.open(page_of(invoice))
    assert "state" not in boss.fields()

    boss.send(state="paid")

    assert "was changed successfully" in boss.follow()
    assert again(invoice).state == "open"


def test_only_what_can_be_done_has_a_button(boss, clerk, invoice):
    by_boss = buttons(boss.open(page_of(invoice)))
    by_clerk = buttons(clerk.open(page_of(invoice)))

    assert by_boss == ["approve", "remind_again", "pay", "collect", "settle"]
    assert by_clerk == ["remind_again", "pay", "collect", "settle"]


def test_a_button_has_a_label_or_the_name_in_words(boss, invoice):
    page = boss.open(page_of(invoice))

    assert ">Approve it</a>" in page.text
    assert ">Remind again</a>" in page.text


def test_what_is_in_its_target_has_no_button(boss):
    letter = Letter.objects.create(name="L", state="lost")

    assert buttons(boss.open(page_of(letter))) == ["keep", "load"]


def test_enter_saves_and_no_button_is_in_the_form(boss, invoice):
    page = boss.open(page_of(invoice))

    form = forms_of(page.text)[-1]
    submits = re.findall(r'<(?:input|button)[^>]*type="submit"[^>]*>', form)
    assert 'name="_save"' in submits[0]
    assert "/transition/" not in form
    assert "/transition/" in page.text


def test_a_page_that_adds_has_no_buttons(boss):
    page = boss.open(reverse("admin:tests_invoice_add", current_app="desk"))

    assert page.status_code == 200
    assert "/transition/" not in page.text


def test_a_popup_has_no_buttons(boss, invoice):
    page = boss.open(page_of(invoice) + "?_popup=1")

    assert "/transition/" not in page.text


# Transitions


def test_a_confirmed_transition_is_done(boss, invoice):
    page = boss.open(transition_of(invoice, "approve"))
    assert "Approve it" in page.text
    assert re.findall(r'idempotency-state">(.*?)<', page.text) == ["to be paid", "approved"]

    boss.send(note="As agreed")

    told = boss.follow()
    assert "was done: I-1 is now “approved”" in told
    assert again(invoice).state == "approved"
    entry = log_of(again(invoice)).get()
    assert (entry.by, entry.note) == (f"user:{boss.user.pk}", "As agreed")
    assert entry.record_id == IdempotencyRecord.objects.get().pk
    assert LogEntry.objects.get().get_change_message() == "Approve it: to be paid → approved"


def test_opening_the_page_does_nothing(boss, invoice):
    boss.open(transition_of(invoice, "approve"))

    assert again(invoice).state == "open"
    assert not IdempotencyRecord.objects.exists()


def test_a_page_sent_twice_takes_effect_once(boss, invoice):
    invoice.remind_again()
    boss.open(transition_of(invoice, "remind_again"))
    page = boss.page

    boss.send()
    boss.page = page
    boss.send()

    assert "was done already" in boss.follow()
    assert effects() == ["remind", "remind"]
    assert log_of(invoice).count() == 2
    assert LogEntry.objects.count() == 1


def test_a_new_page_repeats_what_may_be_repeated(boss, invoice):
    for _ in range(2):
        boss.open(transition_of(invoice, "remind_again"))
        boss.send()

    assert effects() == ["remind", "remind"]
    assert LogEntry.objects.count() == 2


def click_at_once(*desks):
    """Have all of them confirm what they see at the same moment; give what they are told."""
    barrier, answers = threading.Barrier(len(desks)), []

    def click(desk):
        sent = desk.fields()
        barrier.wait(30)
        try:
            answers.append(desk.send(**sent))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=click, args=[desk]) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [302] * len(desks)
    return sorted(str(m) for answer in answers for m in get_messages(answer.wsgi_request))


@pytest.mark.django_db(transaction=True)
def test_a_double_click_takes_effect_once(boss, invoice):
    boss.open(transition_of(invoice, "remind_again"))
    twin = Desk(boss.user)
    twin.page = boss.page

    told = click_at_once(boss, twin)

    assert effects() == ["remind"]
    assert log_of(invoice).count() == 1
    assert LogEntry.objects.count() == 1
    assert ["already" in one for one in told] == [True, False]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["approve", "settle"])
def test_of_two_people_one_is_logged(boss, invoice, name):
    other = Desk(User.objects.create_superuser("other"))
    for desk in (boss, other):
        desk.open(transition_of(invoice, name))

    told = click_at_once(boss, other)

    assert effects() == [name]
    entry = log_of(invoice).get()
    assert entry.by == f"user:{LogEntry.objects.get().user_id}"
    assert sum("was done:" in one for one in told) == 1


def test_what_another_has_done_is_told_and_not_done_again(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    again(invoice).approve(by="somebody")

    boss.send()

    assert "was done already" in boss.follow()
    assert [entry.by for entry in log_of(invoice)] == ["somebody"]
    assert not LogEntry.objects.exists()


def test_a_conflict_is_told_with_the_state(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    again(invoice).file_away()

    boss.send()

    assert "is “written off” by now" in boss.follow()
    assert log_of(invoice).count() == 1
    assert not LogEntry.objects.exists()


def test_a_change_since_the_page_was_shown_is_told(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    Invoice.objects.update(amount=99)

    boss.send()

    assert "has changed since you looked" in boss.follow()
    assert boss.page.request["PATH_INFO"] == transition_of(invoice, "approve")
    assert again(invoice).state == "open"

    boss.send()

    assert "was done" in boss.follow()
    assert again(invoice).state == "approved"


def test_another_state_from_which_it_leads_is_a_change_as_well(boss):
    letter = Letter.objects.create(name="L")
    boss.open(transition_of(letter, "read"))
    letter.send()

    boss.send()

    assert "has changed since you looked" in boss.follow()
    assert again(letter).state == "sent"


def test_a_stale_form_after_a_transition_of_another_shows_a_message(boss, invoice):
    boss.open(page_of(invoice))
    again(invoice).approve()

    page = boss.send(name="mine")

    assert page.status_code == 200
    assert "has been changed since you opened it" in page.text
    assert again(invoice).state == "approved"
    assert again(invoice).name == "I-1"


def test_a_form_without_a_version_leaves_the_state_alone(boss):
    letter = Letter.objects.create(name="L")
    boss.open(page_of(letter))
    again(letter).send()

    boss.send(name="M")

    assert "was changed successfully" in boss.follow()
    assert (again(letter).name, again(letter).state) == ("M", "sent")


@pytest.mark.parametrize("seen", [None, "", "abc", "null"])
def test_a_confirmation_of_nothing_is_refused(boss, invoice, seen):
    boss.open(transition_of(invoice, "approve"))

    boss.send(seen=seen)

    assert "cannot be read" in boss.follow()
    assert again(invoice).state == "open"


def test_a_confirmation_of_another_transition_is_refused(boss, invoice):
    boss.open(transition_of(invoice, "approve"))

    boss.send(to=transition_of(invoice, "remind_again"))

    assert "cannot be read" in boss.follow()
    assert again(invoice).state == "open"


def test_a_guard_that_forbids_is_told(boss, invoice):
    Invoice.objects.update(urgent=True)
    boss.open(transition_of(invoice, "hurry"))
    moved = Invoice.objects.filter(pk=invoice.pk)
    moved.update(urgent=False, version=again(invoice).version)

    boss.send()

    assert "one of its conditions is not met" in boss.follow()
    assert again(invoice).state == "open"


def test_what_is_not_possible_has_no_page(boss, invoice):
    boss.open(transition_of(invoice, "hurry"))

    assert "one of its conditions is not met" in boss.follow()

    again(invoice).approve()
    boss.open(transition_of(invoice, "collect"))

    assert "is “approved” by now" in boss.follow()


@pytest.mark.parametrize("name", ["file_away", "lend_to", "save", "delete", "nothing", "__init__"])
def test_what_is_not_for_the_admin_is_not_there(boss, invoice, name):
    assert boss.open(transition_of(invoice, name)).status_code == 404
    assert boss.client.post(transition_of(invoice, name)).status_code in (302, 404)
    assert again(invoice).state == "open"


def test_what_is_not_for_the_admin_cannot_be_confirmed(boss, invoice):
    step = find_step(invoice, "file_away")

    answer = boss.client.post(
        transition_of(invoice, "file_away"), {"seen": Seen.now(step).token(step)}
    )

    assert answer.status_code == 404
    assert again(invoice).state == "open"


def test_a_transition_that_stays_says_so(boss):
    letter = Letter.objects.create(name="L")

    page = boss.open(transition_of(letter, "weigh"))

    assert re.findall(r'idempotency-state">(.*?)<', page.text) == ["new", "new"]


@pytest.mark.django_db(transaction=True)
def test_a_store_that_is_away_is_told(boss, invoice, store_away):
    boss.open(transition_of(invoice, "approve"))
    store_away()

    boss.send()

    assert "could not be done now" in boss.follow()
    assert again(invoice).state == "open"


@with_two_writers
@pytest.mark.django_db(transaction=True)
def test_a_click_that_still_runs_is_told(boss, invoice, monkeypatch):
    gate, twin = Gate(), Desk(boss.user)
    boss.open(transition_of(invoice, "remind_again"))
    twin.page = boss.page
    original = InvoiceAdmin.log_change

    def log_change(self, *args):
        gate.pass_through()
        return original(self, *args)

    monkeypatch.setattr(InvoiceAdmin, "log_change", log_change)
    monkeypatch.setattr("idempotency.admin.confirming.WAIT", 0)
    with standing_at(gate, boss.send):
        twin.send()
        said = twin.follow()

    assert "is still being done" in said
    assert effects() == ["remind"]


def test_a_row_in_two_tables_is_edited_and_moved(boss):
    lease = Lease.objects.create(name="L", note="N")
    boss.open(page_of(lease, "changelist"))
    boss.send(_save="Save", **{"form-0-note": "M"})
    boss.open(page_of(lease))
    Account.objects.filter(pk=lease.pk).update(note="theirs")
    assert "has been changed since you opened it" in boss.send(note="mine").text
    boss.open(transition_of(lease, "send"))

    boss.send()

    assert "is now “sent”" in boss.follow()
    assert (again(lease).note, again(lease).state) == ("theirs", "sent")


def test_a_row_that_is_gone_is_told(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    key = invoice.pk
    Invoice.objects.all().delete()
    invoice.pk = key

    boss.send()

    assert "any more" in boss.follow()


@pytest.mark.django_db(transaction=True)
def test_a_row_that_goes_in_the_moment_is_told(boss, invoice, monkeypatch):
    boss.open(transition_of(invoice, "approve"))
    original = InvoiceAdmin.get_object

    def get_object(self, *args):
        found = original(self, *args)
        Invoice.objects.all().delete()
        return found

    monkeypatch.setattr(InvoiceAdmin, "get_object", get_object)
    boss.send()
    monkeypatch.undo()

    assert "any more" in boss.follow()


# Permissions


def test_a_transition_needs_its_own_permission(clerk, invoice):
    clerk.open(transition_of(invoice, "remind_again"))
    token = clerk.fields()

    assert clerk.open(transition_of(invoice, "approve")).status_code == 403
    assert clerk.client.post(transition_of(invoice, "approve"), token).status_code == 302
    assert again(invoice).state == "open"


def test_a_permission_that_was_taken_away_is_asked_for_again(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    User.objects.update(username="clerk")

    assert boss.send().status_code == 403
    assert again(invoice).state == "open"
    assert not IdempotencyRecord.objects.filter(state="completed").exists()


def test_a_transition_needs_the_permission_to_change(invoice):
    user = User.objects.create_user("guest", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_invoice"))
    guest = Desk(user)

    assert guest.open(transition_of(invoice, "remind_again")).status_code == 403
    assert guest.client.post(transition_of(invoice, "remind_again")).status_code == 403


def test_a_transition_needs_a_csrf_token(boss, invoice):
    boss.open(transition_of(invoice, "approve"))
    sent = boss.fields()
    client = Client(enforce_csrf_checks=True)
    client.force_login(boss.user)

    assert client.post(transition_of(invoice, "approve"), sent).status_code == 403
    assert again(invoice).state == "open"


def test_a_stranger_is_sent_to_the_login(invoice):
    answer = Client().get(transition_of(invoice, "approve"))

    assert answer.status_code == 302
    assert "/login/" in answer["Location"]


def test_a_key_is_one_persons(boss, invoice):
    boss.open(transition_of(invoice, "remind_again"))
    sent = boss.fields()
    other = Desk(User.objects.create_superuser("other"))

    boss.send()
    other.open(page_of(invoice))
    other.client.post(transition_of(invoice, "remind_again"), sent)

    # For another person the key is a new one, but the page is old.
    assert log_of(invoice).count() == 1


# Forms of transitions


def test_a_form_asks_for_what_the_method_needs(boss, invoice):
    page = boss.open(transition_of(invoice, "pay"))
    assert "Anything but gold." in page.text

    boss.send(**{"given-means": "cash", "note": "thanks"})

    assert "is now “paid”" in boss.follow()
    assert again(invoice).name == "I-1 by cash"
    assert log_of(invoice).get().note == "thanks"


def test_a_form_with_errors_is_shown_again(boss, invoice):
    boss.open(transition_of(invoice, "pay"))
    signed = boss.fields()["seen"].partition(":")[0]

    page = boss.send(**{"given-amount": "much", "note": "kept"})

    assert page.status_code == 200
    assert "This field is required." in page.text
    assert "Enter a number." in page.text
    assert boss.fields()["note"].strip() == "kept"
    # It is signed anew, at another time.
    assert boss.fields()["seen"].partition(":")[0] == signed

    boss.send(**{"given-means": "cash", "given-amount": ""})

    assert "is now “paid”" in boss.follow()


def test_a_refusal_is_told_in_its_own_words(boss, invoice):
    boss.open(transition_of(invoice, "pay"))

    boss.send(**{"given-means": "gold"})

    assert "100 % of the bank&#x27;s gold is gone." in boss.follow()
    assert again(invoice).state == "open"
    assert not log_of(invoice).exists()
    assert not LogEntry.objects.exists()


def test_an_error_leaves_nothing_and_can_be_tried_again(boss, invoice):
    boss.client.raise_request_exception = False
    page = boss.open(transition_of(invoice, "pay"))

    assert boss.send(**{"given-means": "lead"}).status_code == 500
    assert not log_of(invoice).exists()

    boss.page = page
    boss.send(**{"given-means": "cash"})

    assert "is now “paid”" in boss.follow()


def test_a_failure_is_raised_after_its_state_is_kept(boss, invoice):
    boss.client.raise_request_exception = False
    boss.open(transition_of(invoice, "collect"))
    page = boss.page

    assert boss.send().status_code == 500
    assert again(invoice).state == "lost"
    assert LogEntry.objects.get().get_change_message() == "Collect: to be paid → written off"

    boss.page = page
    boss.send()

    assert "had failed already" in boss.follow()
    assert log_of(invoice).count() == 1


def test_a_body_that_breaks_leaves_nothing(boss, invoice, monkeypatch):
    def log_change(self, *args):
        raise ZeroDivisionError

    monkeypatch.setattr(InvoiceAdmin, "log_change", log_change)
    boss.client.raise_request_exception = False
    boss.open(transition_of(invoice, "approve"))

    assert boss.send().status_code == 500
    assert again(invoice).state == "open"
    assert effects() == []


@pytest.mark.django_db(transaction=True)
def test_an_async_transition_is_run(boss, invoice):
    boss.open(transition_of(invoice, "settle"))

    boss.send()

    assert "is now “paid”" in boss.follow()
    assert effects() == ["settle"]


def test_a_form_may_ask_for_the_note(boss, invoice, monkeypatch):
    declared = Invoice.pay._django_fsm.transitions["open"]
    monkeypatch.setitem(declared.custom, "form", "tests.sites.NotedForm")

    boss.open(transition_of(invoice, "pay"))

    assert "note" not in boss.fields()
    assert "given-note" in boss.fields()


# The log


def test_the_page_shows_the_last_transitions(boss, invoice):
    for _ in range(25):
        invoice.remind_again(by=boss.user, note="<b>")

    page = boss.open(page_of(invoice))

    section = re.search(r"<section.*?idempotency-log.*?</section>", page.text, re.S)[0]
    assert section.count("<tr>") == 21
    assert "Remind again" in section
    assert "boss" in section
    assert "&lt;b&gt;" in section


def test_actors_that_are_no_users_are_shown_as_they_are(boss, invoice):
    for by in ("user:x", "user:0", "cron", None):
        invoice.remind_again(by=by)

    page = boss.open(page_of(invoice))

    assert all(words in page.text for words in ("user:x", "user:0", "cron"))


def test_a_state_in_another_table_is_shown(boss):
    Stage.objects.bulk_create([Stage(code="todo"), Stage(code="done")])
    task = Task.objects.create(name="a/b")

    boss.open(transition_of(task, "finish").replace("a/b", "a_2Fb"))
    boss.send()

    assert "is now “done”" in boss.follow()


def test_the_log_is_read_only(boss, invoice):
    invoice.approve(by="cron", note="note")
    entry = TransitionLog.objects.get()
    listed = boss.open(reverse("admin:idempotency_transitionlog_changelist"))

    assert "to be" not in listed.text
    assert "open → approved" in listed.text
    page = boss.open(reverse("admin:idempotency_transitionlog_change", args=[entry.pk]))
    assert page.status_code == 200
    assert 'name="_save"' not in page.text
    assert boss.client.post(page.request["PATH_INFO"], {"note": "x"}).status_code == 403
    add = reverse("admin:idempotency_transitionlog_add")
    assert boss.open(add).status_code == 403


def test_the_log_is_searched_by_the_exact_key(boss, invoice):
    invoice.approve()
    address = reverse("admin:idempotency_transitionlog_changelist")

    found = boss.open(f"{address}?q={invoice.pk}")
    others = boss.open(f"{address}?q={invoice.pk}0")

    assert "open → approved" in found.text
    assert "open → approved" not in others.text


def test_the_list_of_the_log_is_cheap(boss, invoice, django_assert_max_num_queries):
    for _ in range(30):
        invoice.remind_again()
    address = reverse("admin:idempotency_transitionlog_changelist")

    with django_assert_max_num_queries(4):  # The session, the user, a count and the rows.
        boss.open(address)


# The pages


def test_the_pages_need_no_inline_style_or_script(boss, invoice):
    invoice.remind_again()
    boss.open(page_of(invoice))
    stale = boss.fields()
    again(invoice).touch()
    pages = [
        boss.open(page_of(invoice)),
        boss.client.post(page_of(invoice), stale),
        boss.open(transition_of(invoice, "remind_again")),
        boss.open(page_of(invoice, "changelist")),
    ]

    for page in pages:
        assert page.status_code == 200
        assert "idempotency/admin.css" in page.text
        assert not re.search(r'<style|\sstyle=|\son\w+="|javascript:', page.text)
        assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)


def test_a_state_cannot_be_edited_in_the_list():
    class Wrong(InvoiceAdmin):
        list_editable = ("state",)

    with pytest.raises(TypeError, match="list_editable has a state"):
        Wrong(Invoice, site)


def test_the_admins_pass_their_checks():
    assert site._registry[Invoice].check() == []
    assert site._registry[Contract].check() == []


def test_fieldsets_of_ones_own_carry_the_version(boss):
    contract = Contract.objects.create(name="C")
    boss.open(page_of(contract))
    assert "seen_version" in boss.fields()

    boss.send(name="D")

    assert "was changed successfully" in boss.follow()


def test_the_admin_works_without_django_fsm():
    program = """
import sys
sys.modules["django_fsm"] = None
from django.conf import settings
apps = ["admin", "auth", "contenttypes", "messages", "sessions"]
settings.configure(INSTALLED_APPS=[*(f"django.contrib.{app}" for app in apps), "idempotency"])
import django
django.setup()
from django.contrib import admin
from idempotency.models import TransitionLog
assert admin.site.is_registered(TransitionLog)
from idempotency.admin import VersionedAdmin
import idempotency.admin
assert not hasattr(idempotency.admin, "nothing")
try:
    from idempotency.admin import TransitionsAdmin
except ImportError as error:
    assert "django_fsm" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
