"""Changes that are made only on the version that the client has seen."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.test import RequestFactory
from django.test.utils import isolate_apps
from django.utils.decorators import method_decorator
from django.views import View

from idempotency import (
    PreconditionFailed,
    PreconditionInvalid,
    StaleObject,
    TransitionConflict,
    idempotent_view,
)
from idempotency.conditional import etag_for, if_match
from idempotency.http import problem_response
from idempotency.http.etags import IfMatch, parse_if_match
from idempotency.http.problems import TYPE
from idempotency.models import IdempotencyRecord
from idempotency.pessimistic import lock_row
from tests.conftest import KEY, Gate, run_async, standing_at
from tests.models import Account, Branch, Effect, Savings, Sheet

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


def load(request, number):
    return Account.objects.get(pk=number)


def deposit(request, account, number):
    account.balance += 1
    account.save()
    return JsonResponse({"balance": account.balance})


async def adeposit(request, account, number):
    account.balance += 1
    await account.asave()
    return JsonResponse({"balance": account.balance})


class Plain(View):
    def get(self, request, account, number):
        return JsonResponse({"balance": account.balance})

    def put(self, request, account, number):
        return deposit(request, account, number)


class OnMethod(View):
    @if_match(load)
    def put(self, request, account, number):
        return deposit(request, account, number)


@method_decorator(if_match(load), name="put")
class OnNamedMethod(Plain):
    pass


@method_decorator(if_match(load), name="dispatch")
class OnDispatch(Plain):
    pass


class OnAsyncMethod(View):
    @if_match(load)
    async def put(self, request, account, number):
        return await adeposit(request, account, number)


class Async(View):
    async def put(self, request, account, number):
        return await adeposit(request, account, number)


@method_decorator(if_match(load), name="put")
class OnNamedAsyncMethod(Async):
    pass


async def aload(request, number):
    return await Account.objects.aget(pk=number)


VIEWS = {
    "function": if_match(load)(deposit),
    "method": OnMethod.as_view(),
    "named method": OnNamedMethod.as_view(),
    "dispatch": OnDispatch.as_view(),
    "as_view": if_match(load)(Plain.as_view()),
}
ASYNC_VIEWS = {
    "function": if_match(load)(adeposit),
    "function, asynchronous load": if_match(aload)(adeposit),
    "function, load that gives a coroutine": if_match(lambda *args, **named: aload(*args, **named))(
        adeposit
    ),
    "method": OnAsyncMethod.as_view(),
    "named method": OnNamedAsyncMethod.as_view(),
    "as_view": if_match(load)(Async.as_view()),
}


@pytest.fixture
def account():
    return Account.objects.create(name="A")


def request_with(header=None, *, method="PUT", **headers):
    if header is not None:
        headers["If-Match"] = header
    return RequestFactory().generic(method, "/", headers=headers)


def send(view, account, header=None, *, method="PUT", **headers):
    return view(request_with(header, method=method, **headers), number=account.pk)


def told(response):
    """Give the status, and which problem it is."""
    return response.status_code, json.loads(response.content)["type"].removeprefix(TYPE)


def tag(account, version):
    return f'"account-{account.pk}-{version}"'


def stored(row):
    return type(row).objects.get(pk=row.pk)


def change(row):
    """Save the row as another client does meanwhile."""
    stored(row).save()


# Tags


def test_a_tag_names_the_row_and_its_version(account):
    account.save()

    assert etag_for(account) == tag(account, 2)


@pytest.mark.parametrize(
    ("name", "quoted"), [('a "b", c', "a%20%22b%22%2C%20c"), ("ü/1", "%C3%BC%2F1"), ("*", "%2A")]
)
def test_a_tag_is_legal_for_any_key(name, quoted):
    etag = etag_for(Sheet.objects.create(name=name))

    assert etag == f'"sheet-{quoted}-1"'
    assert parse_if_match(etag).matches(etag)


def test_a_child_has_the_version_of_the_first_table():
    savings = Savings.objects.create(name="S")
    change(savings.account_ptr)

    assert etag_for(stored(savings)) == f'"savings-{savings.pk}-2"'


def test_a_version_in_the_second_table_counts_for_both():
    branch = Branch.objects.create(town="A")
    change(branch)

    assert etag_for(stored(branch)) == f'"branch-{branch.pk}-2"'


@isolate_apps("tests")
def test_a_proxy_has_the_tag_of_its_model(account):
    class Customer(Account):
        class Meta:
            proxy = True

    assert etag_for(Customer.objects.get()) == etag_for(account)


@pytest.mark.parametrize("row", [Account(), Account(pk=7)], ids=["new", "with a key"])
def test_an_unsaved_object_has_no_tag(row):
    with pytest.raises(TypeError, match="unsaved"):
        etag_for(row)


def test_an_object_read_without_its_version_has_no_tag(account):
    with pytest.raises(TypeError, match="without version"):
        etag_for(Account.objects.defer("version").get())


@pytest.mark.parametrize("row", [Effect(pk=1), None])
def test_what_has_no_version_has_no_tag(row):
    with pytest.raises(TypeError, match="has no version"):
        etag_for(row)


# The header


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ('"a"', {'"a"'}),
        (' \t"a"\t ', {'"a"'}),
        ('"a", "b"', {'"a"', '"b"'}),
        ('"a","b"', {'"a"', '"b"'}),
        (', "a" ,, \t, "b",', {'"a"', '"b"'}),
        ('"a, b"', None),
        ('"a,b"', {'"a,b"'}),
        ('""', {'""'}),
        ('W/"a", "b"', {'W/"a"', '"b"'}),
        ('"\\"', {'"\\"'}),
        ('"\xfc"', {'"\xfc"'}),
        ('"*"', {'"*"'}),
        ("", None),
        (" ", None),
        (",", None),
        ("abc", None),
        ("3", None),
        ("'a'", None),
        ('"a', None),
        ('a"', None),
        ('"a" "b"', None),
        ('"a""b"', None),
        ('w/"a"', None),
        ('W/ "a"', None),
        ("W/a", None),
        ('*, "a"', None),
        ("*,*", None),
        ('"a", *', None),
        ('"a";q=1', None),
        ('"a\x7f"', None),
        ('"a\n"', None),
        ('"a"\n', None),
        ("," * 4000 + " " * 4000 + "x", None),
    ],
    ids=lambda value: ascii(sorted(value) if isinstance(value, set) else value)[:20],
)
def test_the_header_is_read_by_its_grammar(header, tags):
    if tags is None:
        with pytest.raises(PreconditionInvalid):
            parse_if_match(header)
    else:
        assert parse_if_match(header) == IfMatch(frozenset(tags))


def test_a_star_is_any_row_that_exists():
    star = parse_if_match(" * ")

    assert [star.matches(etag) for etag in ('"a"', None)] == [True, False]


# The decorator


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_change_of_the_current_version_is_made_once(view, account):
    first, second = (send(view, account, tag(account, 1)) for _ in range(2))

    assert (first.status_code, first["ETag"]) == (200, tag(account, 2))
    assert told(second) == (412, "precondition-failed")
    assert stored(account).balance == 1


@committing
@pytest.mark.parametrize("view", ASYNC_VIEWS.values(), ids=ASYNC_VIEWS)
def test_an_asynchronous_change_is_made_once(view):
    account = Account.objects.create(name="A")

    first, second = (run_async(send(view, account, tag(account, 1))) for _ in range(2))

    assert (first.status_code, first["ETag"]) == (200, tag(account, 2))
    assert told(second) == (412, "precondition-failed")
    assert second["ETag"] == tag(account, 2)
    assert stored(account).balance == 1


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_change_without_a_version_is_refused(view, account):
    response = send(view, account)

    assert told(response) == (428, "precondition-required")
    assert json.loads(response.content)["retry"] == {"same_key": False}
    assert stored(account).version == 1


@pytest.mark.parametrize("header", ["", "abc", "1", "account-1-1", "null"])
def test_a_malformed_version_is_refused(header, account):
    response = send(VIEWS["function"], account, header)

    assert told(response) == (400, "precondition-invalid")
    assert stored(account).version == 1


@pytest.mark.parametrize("version", [1, 3, 99], ids=["old", "future", "far"])
def test_another_version_is_refused_and_the_current_one_told(version, account):
    change(account)

    response = send(VIEWS["function"], account, tag(account, version))

    assert told(response) == (412, "precondition-failed")
    assert (response["ETag"], response["Cache-Control"]) == (tag(account, 2), "no-store")
    assert (stored(account).version, stored(account).balance) == (2, 0)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("*", 200),
        ('"x", {}', 200),
        ('{},"x"', 200),
        ('"x", "y"', 412),
        ("W/{}", 412),
        ('W/{}, "x"', 412),
        ("W/{}, {}", 200),
    ],
)
def test_any_tag_of_a_list_matches_but_weak_ones_never_do(header, status, account):
    header = header.replace("{}", tag(account, 1))

    response = send(VIEWS["function"], account, header)

    assert response.status_code == status
    assert stored(account).balance == (status == 200)


def test_the_tag_of_another_row_does_not_match(account):
    other = Account.objects.create()

    assert send(VIEWS["function"], account, etag_for(other)).status_code == 412


def test_the_header_may_be_left_out_where_that_is_allowed(account):
    view = if_match(load, required=False)(deposit)

    allowed, refused = send(view, account), send(view, account, tag(account, 1))

    assert (allowed.status_code, allowed["ETag"]) == (200, tag(account, 2))
    assert told(refused) == (412, "precondition-failed")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_needs_no_version_and_tells_it(method, account):
    response = send(OnDispatch.as_view(), account, method=method)

    assert (response.status_code, response["ETag"]) == (200, tag(account, 1))


def test_reading_with_another_version_is_refused(account):
    response = send(OnDispatch.as_view(), account, tag(account, 9), method="GET")

    assert told(response) == (412, "precondition-failed")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_other_answers_have_no_tag(status, account):
    view = if_match(load)(lambda request, account, number: HttpResponse(status=status))

    assert "ETag" not in send(view, account, "*")


def test_a_tag_that_the_view_sets_stays(account):
    view = if_match(load)(lambda *args, **named: HttpResponse(headers={"ETag": '"own"'}))

    assert send(view, account, "*")["ETag"] == '"own"'


def by_object(request, account, number):
    account.delete()
    return HttpResponse(status=204)


def by_queryset(request, account, number):
    Account.objects.filter(pk=number).delete()
    return HttpResponse(status=204)


@pytest.mark.parametrize(
    ("view", "method"), [(by_object, "DELETE"), (by_object, "POST"), (by_queryset, "DELETE")]
)
def test_a_deleted_row_has_no_tag(view, method, account):
    response = send(if_match(load)(view), account, tag(account, 1), method=method)

    assert (response.status_code, "ETag" in response) == (204, False)
    assert not Account.objects.exists()


# Rows that are not there


def get_or_404(request, number):
    return get_object_or_404(Account, pk=number)


def test_a_missing_row_matches_nothing():
    for header in ("*", '"account-7-1"'):
        response = send(VIEWS["function"], Account(pk=7), header)

        assert told(response) == (412, "precondition-failed")
        assert "ETag" not in response


def test_a_missing_row_is_the_loaders_to_tell_without_a_version():
    with pytest.raises(ObjectDoesNotExist):
        send(if_match(load, required=False)(deposit), Account(pk=7))


@pytest.mark.parametrize("header", ["*", '"account-7-1"'])
def test_not_found_passes(header):
    with pytest.raises(Http404):
        send(if_match(get_or_404)(deposit), Account(pk=7), header)


def test_a_missing_row_in_the_view_is_the_views_error(account):
    @if_match(load)
    def view(request, account, number):
        Account.objects.get(pk=0)

    with pytest.raises(ObjectDoesNotExist):
        send(view, account, "*")


# Races between load and save


def read_before(change, row):
    """Give a loader of the row as it was before *change*, which is made by then."""
    before = stored(row)
    change(row)
    return lambda request, number: before


def update(row):
    Account.objects.filter(pk=row.pk).update(balance=99)


def vanish(row):
    Account.objects.filter(pk=row.pk).delete()


def deposit_and_note(request, account, number):
    Effect.objects.create(name="noted")
    return deposit(request, account, number)


@pytest.mark.parametrize("change", [change, update])
def test_a_faster_client_is_told_as_a_failed_precondition(change, account):
    view = if_match(read_before(change, account))(deposit_and_note)

    response = send(view, account, tag(account, 1))

    assert told(response) == (412, "precondition-failed")
    assert response["ETag"] == tag(account, 2)
    assert stored(account).version == 2
    assert not Effect.objects.exists()


@pytest.mark.parametrize("header", ["*", '"account-{}-1"'])
def test_a_row_that_vanishes_meanwhile_matches_nothing(header, account):
    view = if_match(read_before(vanish, account))(deposit_and_note)

    response = send(view, account, header.format(account.pk))

    assert told(response) == (412, "precondition-failed")
    assert "ETag" not in response
    assert not Effect.objects.exists()


@pytest.mark.parametrize("header", [None, "*", '"account-{0}-1", "account-{0}-2"'])
def test_a_conflict_is_one_where_the_condition_holds(header, account):
    view = if_match(read_before(change, account), required=False)(deposit_and_note)

    response = send(view, account, header and header.format(account.pk))

    assert told(response) == (409, "stale-object")
    assert response["ETag"] == tag(account, 2)
    assert not Effect.objects.exists()


def test_a_view_that_is_its_own_rival_does_not_count(account):
    def view(request, account, number):
        update(account)
        account.save()

    response = send(if_match(load)(view), account, tag(account, 1))

    assert told(response) == (409, "stale-object")
    assert response["ETag"] == tag(account, 1)
    assert stored(account).balance == 0


def test_a_conflict_of_another_row_stays_a_conflict(account):
    other = Account.objects.create()
    change(other)

    def view(request, account, number):
        account.save()
        other.save()

    response = send(if_match(load)(view), account, tag(account, 1))

    assert told(response) == (409, "stale-object")
    assert "ETag" not in response
    assert stored(account).version == 1


@pytest.mark.parametrize("facts", [{}, {"model": Branch, "pk": 1}, {"model": "x", "actual": 1}])
def test_a_conflict_of_no_known_row_stays_a_conflict(facts, account):
    def view(request, account, number):
        raise StaleObject(**facts)

    assert told(send(if_match(load)(view), account, "*")) == (409, "stale-object")


def test_a_conflict_in_the_loader_stays_a_conflict(account):
    def load(request, number):
        raise StaleObject(model=Account, pk=number, actual=3)

    assert told(send(if_match(load)(deposit), account, "*")) == (409, "stale-object")


@pytest.mark.parametrize("is_parent", [True, False])
def test_a_conflict_in_the_first_table_is_one_of_the_child(is_parent):
    savings = Savings.objects.create(name="S")
    stale = stored(savings.account_ptr) if is_parent else stored(savings)

    def view(request, savings, number):
        stale.save()

    view = if_match(read_before(change, savings))(view)
    response = send(view, savings, etag_for(savings))

    assert told(response) == (412, "precondition-failed")
    assert response["ETag"] == etag_for(stored(savings))


@committing
def test_a_faster_transaction_is_told_as_a_failed_precondition():
    if connection.vendor == "sqlite":
        pytest.skip("no other writer while one works")
    account, gate = Account.objects.create(), Gate()

    def view(request, account, number):
        gate.pass_through()
        return deposit_and_note(request, account, number)

    guarded = if_match(load)(view)
    with standing_at(gate, lambda: send(guarded, account, tag(account, 1))) as slower:
        faster = send(VIEWS["function"], account, tag(account, 1))

    assert faster.status_code == 200
    assert told(slower[0]) == (412, "precondition-failed")
    assert slower[0]["ETag"] == tag(account, 2)
    assert stored(account).balance == 1
    assert not Effect.objects.exists()


@committing
def test_a_faster_client_is_told_to_an_asynchronous_view():
    account = Account.objects.create()

    @if_match(load)
    async def view(request, loaded, number):
        await sync_to_async(change)(account)
        return await adeposit(request, loaded, number)

    response = run_async(send(view, account, tag(account, 1)))

    assert told(response) == (412, "precondition-failed")
    assert response["ETag"] == tag(account, 2)


@committing
def test_an_asynchronous_view_is_refused_as_a_synchronous_one():
    account = Account.objects.create()
    view = ASYNC_VIEWS["function"]

    refused = [run_async(send(view, account, header)) for header in (None, "abc", "W/*", '"a"')]

    assert [response.status_code for response in refused] == [428, 400, 400, 412]
    assert stored(account).version == 1


# Transactions


@committing
def test_loader_and_view_share_a_transaction():
    account = Account.objects.create()

    @if_match(lambda request, number: lock_row(Account, pk=number))
    def view(request, account, number):
        account.save()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(view, account, tag(account, 1))

    assert stored(account).version == 1


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("options", [{}, {"using": "other"}])
def test_the_row_may_be_in_another_database(options):
    account = Account.objects.using("other").create()
    stale = Account.objects.using("other").get()
    account.save()

    @if_match(lambda request, number: stale, **options)
    def view(request, account, number):
        Effect.objects.using("other").create(name="e")
        account.save()

    response = send(view, account, tag(account, 1))

    assert told(response) == (412, "precondition-failed")
    assert response["ETag"] == tag(account, 2)
    assert not Effect.objects.using("other").exists()


# Together with keys


def one(request):
    return Account.objects.get()


def deposit_one(request, account):
    return deposit(request, account, None)


@pytest.mark.parametrize("options", [{}, {"mode": "lease"}])
def test_a_lost_answer_is_replayed_although_the_version_is_old(served, account, options):
    if connection.vendor == "sqlite" and options:
        pytest.skip("no other writer while one works")
    send = served(idempotent_view(**options)(if_match(one)(deposit_one)))

    first, second = (send(headers={"If-Match": tag(account, 1)}) for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 200)
    assert (second["ETag"], second["Idempotent-Replayed"]) == (tag(account, 2), "true")
    assert stored(account).balance == 1


@pytest.mark.parametrize(("header", "status"), [(None, 428), ("abc", 400), ('"account-0-1"', 412)])
def test_a_refusal_is_replayed_until_there_is_a_new_key(served, account, header, status):
    send = served(idempotent_view(if_match(one)(deposit_one)))
    headers = {} if header is None else {"If-Match": header}
    current = {"If-Match": tag(account, 1)}

    refused = [send(headers=headers), send(headers=current)]
    anew = send(f"{KEY}-2", headers=current)

    assert [response.status_code for response in refused] == [status, status]
    assert anew.status_code == 200
    assert stored(account).balance == 1


def test_a_late_refusal_leaves_the_key_and_nothing_else(served, account):
    before = stored(account)
    change(account)
    view = if_match(lambda request: before)(lambda *args: deposit_and_note(*args, None))

    responses = [
        served(idempotent_view(view))(headers={"If-Match": tag(account, 1)}) for _ in range(2)
    ]

    assert [response.status_code for response in responses] == [412, 412]
    assert [response["ETag"] for response in responses] == [tag(account, 2)] * 2
    assert IdempotencyRecord.objects.get().state == "completed"
    assert not Effect.objects.exists()


def test_the_middleware_stands_outside(served, account, settings):
    settings.MIDDLEWARE = ["idempotency.middleware.IdempotencyMiddleware"]
    send = served(if_match(one)(deposit_one))

    responses = [send(headers={"If-Match": tag(account, 1)}) for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 200]
    assert stored(account).balance == 1


def test_a_condition_around_a_key_is_refused():
    with pytest.raises(TypeError, match="below idempotent_view"):
        if_match(load)(idempotent_view(deposit))


def test_a_transaction_of_the_request_keeps_nothing_of_a_refused_run(
    served, account, atomic_requests
):
    before = stored(account)
    change(account)
    view = if_match(lambda request: before)(lambda *args: deposit_and_note(*args, None))

    response = served(view)(headers={"If-Match": tag(account, 1)})

    assert told(response) == (412, "precondition-failed")
    assert not Effect.objects.exists()


def test_an_unchanged_row_is_not_sent_again(served, account, settings):
    settings.MIDDLEWARE = ["django.middleware.http.ConditionalGetMiddleware"]
    send = served(if_match(one)(lambda request, account: HttpResponse("A")))

    headers = {"If-None-Match": tag(account, 1)}
    responses = [send(method="get", headers=headers)]
    change(account)
    responses.append(send(method="get", headers=headers))

    assert [response.status_code for response in responses] == [304, 200]


# Mistakes


@pytest.mark.parametrize(
    ("load", "view", "options"),
    [
        ("load", deposit, {}),
        (load, Plain, {}),
        (load, None, {}),
        (load, request_with(), {}),
        (aload, deposit, {}),
        (load, adeposit, {"using": "default"}),
    ],
)
def test_what_cannot_be_protected_is_refused_when_decorating(load, view, options):
    with pytest.raises(TypeError):
        if_match(load, **options)(view)


def test_the_loader_gives_a_versioned_row(account):
    with pytest.raises(TypeError, match="has no version"):
        send(if_match(lambda request, number: None)(deposit), account, "*")


def test_the_loader_reads_the_version(account):
    view = if_match(lambda request, number: Account.objects.defer("version").get())(deposit)

    with pytest.raises(TypeError, match="without version"):
        send(view, account, "*")


def test_a_synchronous_way_to_an_asynchronous_view_is_refused(account):
    view = method_decorator(if_match(load), name="dispatch")(type("Late", (Async,), {}))

    with pytest.raises(TypeError, match="coroutine"):
        send(view.as_view(), account, "*")


def test_the_request_is_djangos(account):
    with pytest.raises(TypeError, match="if_match was called without"):
        VIEWS["function"]("request", number=1)


# Problems


@pytest.mark.parametrize("error", [StaleObject, PreconditionFailed])
@pytest.mark.parametrize(
    ("facts", "etag"),
    [
        ({"model": Account, "pk": 5, "actual": 3}, '"account-5-3"'),
        ({"model": Account, "pk": 5, "actual": None}, None),
        ({"model": Account, "pk": None, "actual": 3}, None),
        ({"model": "Account", "pk": 5, "actual": 3}, None),
        ({"model": Account, "pk": 5, "actual": "draft"}, None),
        ({}, None),
    ],
)
def test_a_problem_tells_the_current_tag_if_it_is_known(error, facts, etag):
    assert problem_response(error(**facts)).get("ETag") == etag


@pytest.mark.parametrize(("actual", "state"), [("paid", "paid"), (3, "3"), (None, None)])
def test_a_state_conflict_tells_the_state(actual, state):
    body = json.loads(problem_response(TransitionConflict(actual=actual)).content)

    assert body.get("state") == state
