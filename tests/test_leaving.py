"""Leaving a lock: when it is freed, and who is told if it was lost."""

import asyncio
import json
import threading
from contextvars import Context, copy_context

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View

from idempotency import LockReentered, LockUnavailable, StaleLock, idempotent_view, lock
from idempotency.locks import current_lock, get_backend
from idempotency.locks.base import Grant
from idempotency.renewal import renewal
from idempotency.testing.children import Child
from tests.conftest import elsewhere, run_async
from tests.models import Effect
from tests.test_locks import LOCKS

pytestmark = pytest.mark.django_db(transaction=True)

OF_ROWS = ["database", "redis"]


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, **LOCKS}


@pytest.fixture(params=OF_ROWS)
def alias(request, settings):
    if request.param == "redis" and not settings.REDIS_URL:
        pytest.skip("no Redis")
    if request.param == "database" and connection.vendor == "sqlite":
        pytest.skip("nobody else can write while a transaction is open")
    return request.param


def is_free(alias, name):
    """Tell whether another thread, with connections of its own, could have the lock."""
    found = []

    def try_once():
        try:
            with lock(name, backend=alias):
                found.append(True)
        except LockUnavailable:
            found.append(False)

    elsewhere(lambda: Context().run(try_once))
    return found == [True]


def lose(alias, held):
    """Free the lock behind its holder's back."""
    get_backend(alias).release(Grant(held.name, held.owner, held.token, 30))


# Transactions


def test_savepoint_that_rolls_back_frees_nothing_that_the_transaction_needs(alias):
    with transaction.atomic():
        with lock("a", backend=alias):
            Effect.objects.create(name="kept")
        with pytest.raises(KeyError), transaction.atomic(), lock("a", backend=alias):
            raise KeyError

        assert not is_free(alias, "a")

    assert is_free(alias, "a")
    assert Effect.objects.count() == 1


def test_savepoint_that_rolls_back_frees_what_was_taken_in_it(alias):
    with transaction.atomic():
        with pytest.raises(KeyError), transaction.atomic(), lock("a", backend=alias):
            raise KeyError
        with lock("a", backend=alias):
            pass
        assert not is_free(alias, "a")

    assert is_free(alias, "a")


def test_lock_is_free_to_this_process_right_after_a_rollback(alias):
    for _ in range(20):
        with pytest.raises(KeyError), transaction.atomic(), lock("a", backend=alias):
            raise KeyError

        assert Context().run(lambda: lock("a", backend=alias).__enter__().release())


def test_lock_is_free_to_asynchronous_code_right_after_a_rollback(alias):
    def roll_back():
        with pytest.raises(KeyError), transaction.atomic(), lock("a", backend=alias):
            raise KeyError

    async def enter():
        async with lock("a", backend=alias) as held:
            return not held.lost

    background_is_busy = threading.Event()
    renewal.run_soon(background_is_busy.wait, get_backend(alias))
    roll_back()
    try:
        assert run_async(enter())
    finally:
        background_is_busy.set()


def test_hook_of_another_that_fails_keeps_no_lock(alias):
    def commit():
        with transaction.atomic():
            transaction.on_commit(lambda: 1 / 0)
            with lock("a", backend=alias):
                pass

    with pytest.raises(ZeroDivisionError) as kept:
        commit()

    assert is_free(alias, "a")
    assert kept.value is not None


def test_thread_that_inherited_the_context_does_not_enter_before_the_commit(alias):
    with transaction.atomic():
        with lock("a", backend=alias):
            pass
        inherited = []

        def enter():
            try:
                lock("a", backend=alias).__enter__()
            except LockUnavailable as error:
                inherited.append(type(error))

        context = copy_context()
        elsewhere(lambda: context.run(enter))

    assert inherited == [LockUnavailable]


def test_loss_between_block_and_commit_is_logged(alias, caplog):
    with transaction.atomic():
        with lock("a", backend=alias) as held:
            pass
        elsewhere(lambda: lose(alias, held))

    assert "between the end of its block and the commit" in caplog.text


def test_transaction_by_hand_is_refused(alias):
    def work():
        with lock("a", backend=alias):
            Effect.objects.create(name="open")

    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError, match="atomic"):
            work()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)

    assert is_free(alias, "a")


def test_asynchronous_block_in_a_synchronous_transaction_is_freed_after_it(alias):
    async def hold():
        async with lock("a", backend=alias):
            pass

    with transaction.atomic():
        async_to_sync(hold)()
        assert not is_free(alias, "a")

    assert is_free(alias, "a")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere others can write")
def test_row_of_a_lock_lives_and_dies_with_a_transaction_of_sqlite():
    with transaction.atomic():
        with lock("a"):
            pass
        with pytest.raises(KeyError), transaction.atomic(), lock("a"):
            raise KeyError
        with lock("a") as held:
            held.assert_held()

    assert is_free("default", "a")


# By hand


def test_lock_that_was_released_by_hand_is_not_lost(alias):
    with lock("a", backend=alias) as held:
        assert held.release()
        assert is_free(alias, "a")


def test_shared_lock_object_never_leaves_the_block_of_another(alias):
    shared = lock("a", backend=alias, wait=20)
    entered, may_go = threading.Event(), threading.Event()
    told = []

    def other():
        with shared as held:
            entered.set()
            assert may_go.wait(30)
            told.append(held.lost)

    thread = threading.Thread(target=elsewhere, args=(other,))
    with shared as held:
        thread.start()
        held.release()
        assert entered.wait(30)
        with lock("b", backend=alias):
            pass
    still_held = not is_free(alias, "a")
    may_go.set()
    thread.join(30)

    assert still_held
    assert told == [False]


def test_lost_lock_is_not_entered_again(alias):
    def enter_again():
        with lock("a", backend=alias, reentrant=True, lease=0.05, renew=False) as held:
            while not held.lost:
                pass
            with lock("a", backend=alias, reentrant=True):
                raise AssertionError

    with pytest.raises(StaleLock):
        enter_again()


# Functions whose work comes later


async def coroutine():
    return 1


@pytest.mark.parametrize(
    "function", [lambda: coroutine(), lambda: (x for x in "ab"), lambda: asyncio.sleep(0)]
)
def test_function_whose_work_comes_after_its_call_is_refused(function):
    with pytest.raises(TypeError, match="after its call"):
        lock("a")(function)()

    assert connection.vendor == "sqlite" or is_free("default", "a")


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_lock_goes_below_what_makes_a_method(kind):
    with pytest.raises(TypeError, match=f"below @{kind.__name__}"):
        lock("a")(kind(lambda *args: None))


def test_asynchronous_answer_is_awaited_where_it_can_be(alias):
    async def instead(error):
        return "busy"

    @lock("a", backend=alias, on_locked=instead)
    async def work():
        raise AssertionError

    held = Context().run(lock("a", backend=alias).__enter__)

    assert run_async(work()) == "busy"
    held.release()
    with pytest.raises(TypeError, match="synchronous"):
        lock("a", on_locked=instead)(lambda: None)


def test_handler_of_an_asynchronous_class_holds_the_lock(alias):
    class Place(View):
        @method_decorator(lock("a", backend=alias))
        async def post(self, request):
            return HttpResponse(str(await sync_to_async(is_free)(alias, "a")))

    response = run_async(Place.as_view()(RequestFactory().post("/")))

    assert response.content == b"False"


# Views


class Wrapped:
    """What a framework makes of a request."""

    def __init__(self, request):
        self._request = request


@pytest.mark.parametrize("call", ["keyword", "wrapped"])
def test_request_is_known_however_it_comes(alias, call):
    @lock("a", backend=alias)
    def view(request):
        raise AssertionError

    request = RequestFactory().post("/")
    held = Context().run(lock("a", backend=alias).__enter__)
    response = view(request=request) if call == "keyword" else view(Wrapped(request))
    held.release()

    assert response.status_code == 409


def losing(alias):
    @lock("a", backend=alias)
    def view(request):
        Effect.objects.create(name="late")
        held = current_lock()
        elsewhere(lambda: lose(alias, held))
        return HttpResponse("done", status=201)

    return view


def test_protected_view_that_lost_its_lock_is_rolled_back_and_may_be_retried(alias, served):
    send = served(idempotent_view(losing(alias)))

    first = send()

    assert first.status_code == 409
    assert json.loads(first.content)["retry"]["same_key"] is True
    assert not Effect.objects.exists()


def test_view_that_lost_its_lock_under_atomic_requests_is_rolled_back(
    alias, served, atomic_requests
):
    response = served(losing(alias))()

    assert response.status_code == 409
    assert not Effect.objects.exists()


def test_view_whose_effects_are_there_to_stay_sends_its_answer(alias, served, caplog):
    response = served(losing(alias))()

    assert response.status_code == 201
    assert Effect.objects.count() == 1
    assert "was lost before its work was done" in caplog.text


@pytest.mark.parametrize("is_atomic", [False, True])
def test_view_that_asks_and_learns_of_the_loss_is_answered_for(
    alias, served, monkeypatch, is_atomic
):
    @lock("a", backend=alias)
    def view(request):
        Effect.objects.create(name="before")
        held = current_lock()
        lose(alias, held)
        held.lose()
        held.assert_held()
        raise AssertionError

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", is_atomic)
    response = served(view)()

    assert (response.status_code, response["Retry-After"]) == (409, "1")
    assert json.loads(response.content)["retry"] == {"same_key": True, "after": 1}
    assert Effect.objects.exists() is not is_atomic


def test_view_that_waits_for_itself_is_a_mistake_and_not_an_answer(alias):
    @lock("a", backend=alias)
    @lock("a", backend=alias)
    def view(request):
        raise AssertionError

    with pytest.raises(LockReentered):
        view(RequestFactory().post("/"))


def order_view(alias):
    """Give a class whose handlers hold the lock that their address names, and tell of it."""

    def tell(request, pk):
        return HttpResponse(current_lock().name)

    class Order(View):
        @method_decorator(lock("order:{pk}", backend=alias))
        def get(self, request, pk):
            return tell(request, pk)

        def post(self, request, pk):
            return tell(request, pk)

    return Order


@pytest.mark.parametrize(
    ("method", "decorate"),
    [
        ("get", lambda locked: lambda view: view),
        ("post", lambda locked: method_decorator(locked, name="dispatch")),
        ("post", lambda locked: method_decorator([locked], name="post")),
    ],
    ids=["method", "dispatch", "by name"],
)
def test_class_names_its_lock_by_the_address(alias, method, decorate):
    view = decorate(lock("order:{pk}", backend=alias))(order_view(alias))

    response = view.as_view()(RequestFactory().generic(method.upper(), "/"), pk=7)

    assert response.content == b"order:7"


def test_method_decorator_leaves_arguments_in_their_places(alias):
    class Account:
        @method_decorator(lock("account:{number}", backend=alias))
        def withdraw(self, number, amount=0):
            return current_lock().name

    assert Account().withdraw(7, 100) == "account:7"
    assert Account().withdraw(7, amount=100) == "account:7"


# Forks


def test_child_of_a_fork_does_not_wait_for_what_its_parent_was_freeing(alias, monkeypatch):
    backend = get_backend(alias)
    release = type(backend).release
    is_freeing, may_free = threading.Event(), threading.Event()

    def slow(self, grant):
        is_freeing.set()
        assert may_free.wait(30)
        return release(self, grant)

    def enter(report):
        try:
            with lock("a", backend=alias):
                pass
        except LockUnavailable:
            report("refused")

    monkeypatch.setattr(type(backend), "release", slow)
    with pytest.raises(KeyError), transaction.atomic(), lock("a", backend=alias):
        raise KeyError
    assert is_freeing.wait(30)
    reports, _ = Child(enter).join()
    may_free.set()

    assert reports == ["refused"]
