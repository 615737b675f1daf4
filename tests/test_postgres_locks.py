"""Advisory locks of PostgreSQL: in the caller's transaction, or on connections of their own."""

import os
import signal
import socket
import threading
import time
import uuid
from contextlib import ExitStack, closing, contextmanager, suppress
from io import StringIO

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError

from idempotency import InvalidBackend, LockUnavailable, StaleLock, StoreUnavailable, lock
from idempotency.locks import build_backend, get_backend
from idempotency.locks.base import Ask, Busy, Grant
from idempotency.locks.postgres.sessions import SEQUENCE, LockSession, lock_key
from idempotency.renewal import renewal
from idempotency.testing.children import Child
from tests.conftest import wait_until
from tests.models import Effect
from tests.test_locks import LOCKS, apart, is_free, is_free_elsewhere, take_and_leave

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.skipif(
        "connection.vendor != 'postgresql'", reason="advisory locks are PostgreSQL's"
    ),
]
POSTGRES = LOCKS["postgres"]
SQLITE = "django.db.backends.sqlite3"
LEVELS = pytest.mark.parametrize("alias", ["postgres", "postgres-session"])


@pytest.fixture(autouse=True)
def locks(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {}, **LOCKS}


@pytest.fixture
def name():
    return f"lock:{uuid.uuid4()}"


def holders(name):
    """Give the server's processes that hold the lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND (classid::bigint << 32) | objid::bigint = %s",
            [lock_key(name)],
        )
        return [pid for (pid,) in cursor.fetchall()]


def execute(sql, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else None


def connections_of_locks():
    return len(activities("pid", "idempotency%"))


def activities(column, application="idempotency lock"):
    """Give what the sessions in this database have in *column*; other tests have databases too."""
    sql = f"SELECT {column} FROM pg_stat_activity WHERE datname = current_database()"  # noqa: S608
    return [value for (value,) in execute(f"{sql} AND application_name LIKE %s", application)]


@contextmanager
def roll_back_savepoint():
    with suppress(KeyError), transaction.atomic():
        yield
        raise KeyError


# In the caller's transaction


def test_lock_in_a_transaction_is_held_by_its_connection(name):
    with transaction.atomic(), lock(name, backend="postgres") as held:
        ((own,),) = execute("SELECT pg_backend_pid()")
        holding = holders(name)

    assert holding == [own]
    assert not held.lost


def test_lock_in_a_transaction_takes_one_statement(name, django_assert_num_queries):
    with transaction.atomic(), django_assert_num_queries(1), lock(name, backend="postgres"):
        pass


def test_session_level_takes_a_connection_of_its_own_in_a_transaction(name):
    with transaction.atomic(), lock(name, backend="postgres-session"):
        ((own,),) = execute("SELECT pg_backend_pid()")
        (holding,) = holders(name)

    assert holding != own


def test_commit_frees_the_lock_and_shows_the_effect_at_once(name):
    with transaction.atomic():
        with lock(name, backend="postgres"):
            Effect.objects.create(name="e")
        inside = is_free_elsewhere("postgres", name)

    assert not inside
    assert holders(name) == []


def test_rollback_frees_the_lock(name):
    with pytest.raises(KeyError), transaction.atomic(), lock(name, backend="postgres"):
        raise KeyError

    assert holders(name) == []


def test_lock_of_a_savepoint_that_was_rolled_back_is_taken_anew(name):
    with transaction.atomic():
        with pytest.raises(KeyError), transaction.atomic(), lock(name, backend="postgres"):
            raise KeyError
        freed = holders(name) == []
        with lock(name, backend="postgres") as held:
            held.assert_held()
            holding = holders(name)

    assert freed
    assert len(holding) == 1


def test_lock_that_outlives_its_savepoint_is_lost():
    with transaction.atomic(), ExitStack() as stack:
        with roll_back_savepoint():
            held = stack.enter_context(lock("a", backend="postgres"))

        with pytest.raises(StaleLock):
            held.assert_held()
        with pytest.raises(StaleLock):
            stack.close()


def test_lock_that_outlives_its_transaction_is_lost():
    with ExitStack() as stack:
        with transaction.atomic():
            held = stack.enter_context(lock("a", backend="postgres"))
            held.assert_held()

        with pytest.raises(StaleLock):
            held.assert_held()
        with pytest.raises(StaleLock):
            stack.close()


def test_hook_of_the_commit_takes_the_lock_anew(name):
    tokens, holding = [], []

    def go_on():
        with transaction.atomic(), lock(name, backend="postgres") as held:
            tokens.append(held.token)
            holding.extend(holders(name))

    with transaction.atomic():
        transaction.on_commit(go_on)
        with lock(name, backend="postgres") as held:
            tokens.append(held.token)

    assert tokens == sorted(set(tokens))
    assert len(holding) == 1


def test_rollback_of_another_database_leaves_the_lock(name):
    with transaction.atomic():
        with pytest.raises(KeyError), transaction.atomic("other"), lock(name, backend="postgres"):
            raise KeyError
        with lock(name, backend="postgres") as held:
            held.assert_held()
            inside = is_free_elsewhere("postgres", name)

    assert not inside


def test_rollback_of_a_savepoint_frees_what_was_taken_in_it_alone(name):
    with transaction.atomic(), lock(f"{name}:outer", backend="postgres"):
        with roll_back_savepoint(), lock(name, backend="postgres"):
            pass
        with lock(f"{name}:later", backend="postgres"):
            taken = [bool(holders(one)) for one in (f"{name}:outer", name, f"{name}:later")]
        assert not is_free("postgres", f"{name}:outer")

    assert taken == [True, False, True]


def test_second_owner_in_the_same_transaction_is_refused(name):
    with transaction.atomic(), lock(name, backend="postgres"):
        assert not is_free("postgres", name)
        with pytest.raises(LockUnavailable):
            apart(lambda: take_and_leave("postgres", name, wait=0.05))


def test_owner_that_asks_again_in_a_transaction_has_the_lock(name):
    backend = get_backend("postgres")
    with transaction.atomic():
        first = backend.acquire(Ask(name, "me", 30))

        assert backend.acquire(Ask(name, "me", 30)) == first
        assert backend.acquire(Ask(name, "you", 30)) == Busy()
        assert not backend.release(Grant(name, "you", first.token, None, first.within))
        assert backend.release(first)
        assert backend.acquire(Ask(name, "you", 30)).token > first.token
        backend.withdraw(Ask(name, "you", 30))
        assert isinstance(backend.acquire(Ask(name, "me", 30)), Grant)


def test_transaction_and_connection_of_its_own_exclude_each_other(name):
    with lock(name, backend="postgres"), transaction.atomic():
        assert not is_free("postgres", name)

    with transaction.atomic(), lock(name, backend="postgres"):
        assert not is_free_elsewhere("postgres", name)


def test_levels_exclude_each_other(name):
    with lock(name, backend="postgres"):
        assert not is_free("postgres-session", name)


def test_many_locks_in_one_transaction_are_all_held():
    names = [f"many:{number}" for number in range(300)]
    with transaction.atomic(), ExitStack() as stack:
        held = [stack.enter_context(lock(name, backend="postgres")) for name in names]

        assert not any(one.lost for one in held)
        assert not is_free("postgres", names[0])
    assert is_free("postgres", names[0])


def test_transaction_that_can_only_be_rolled_back_is_told(name):
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            take_and_leave("postgres", name)


def test_transaction_after_a_database_error_is_told(name):
    def go_on():
        with transaction.atomic():
            connection.cursor().connection.execute("SAVEPOINT a")
            with pytest.raises(Exception, match="division"):
                connection.cursor().connection.execute("SELECT 1/0")
            take_and_leave("postgres", name)

    with pytest.raises(TransactionManagementError, match="only be rolled back"):
        go_on()


# On a connection of its own


@LEVELS
def test_connection_of_its_own_ends_with_the_lock(alias, name):
    with lock(name, backend=alias):
        inside = connections_of_locks()
        with pytest.raises(LockUnavailable):
            apart(lambda: take_and_leave(alias, name))
        with pytest.raises(LockUnavailable):
            apart(lambda: take_and_leave(alias, name, wait=0.2))

    assert inside == 1
    wait_until(lambda: connections_of_locks() == 0)
    assert get_backend(alias)._sessions == {}


@LEVELS
def test_killed_process_frees_its_locks_at_once(alias, name):
    def die(report):
        with lock(name, backend=alias) as held:
            report(held.token)
            os.kill(os.getpid(), signal.SIGKILL)

    (token,), _ = Child(die).join()
    started_at = time.monotonic()

    with lock(name, backend=alias, wait=20) as held:
        assert time.monotonic() - started_at < 0.5
    assert held.token > token


@LEVELS
def test_connection_that_the_server_ends_is_told_at_the_next_renewal(alias, name):
    told = threading.Event()

    def lose():
        with lock(name, backend=alias, lease=0.9, on_lost=lambda held: told.set()) as held:
            (pid,) = holders(name)
            execute("SELECT pg_terminate_backend(%s, 5000)", pid)
            assert told.wait(20)
            assert held.lost

    with pytest.raises(StaleLock):
        lose()
    with lock(name, backend=alias):
        pass


@LEVELS
def test_release_after_the_connection_was_lost_says_so(alias, name):
    held = lock(name, backend=alias).__enter__()
    (pid,) = holders(name)
    execute("SELECT pg_terminate_backend(%s, 5000)", pid)

    assert held.release() is False
    assert get_backend(alias)._sessions == {}


@LEVELS
def test_waiting_caller_whose_connection_ends_gets_another(alias, name):
    backend = get_backend(alias)
    ask = Ask(name, "waiting", 30, queues=True)
    with lock(name, backend=alias):
        assert isinstance(backend.acquire(ask), Busy)
        (pid,) = activities("pid")
        execute("SELECT pg_terminate_backend(%s, 5000)", pid)

    assert isinstance(backend.acquire(ask), Grant)
    backend.withdraw(ask)
    assert backend._sessions == {}


@LEVELS
def test_waiting_caller_keeps_no_transaction_open(alias, name):
    backend = get_backend(alias)
    ask = Ask(name, "waiting", 30, queues=True)
    with lock(name, backend=alias):
        backend.acquire(ask)
        states = activities("state")

    backend.withdraw(ask)
    assert states == ["idle"]


@LEVELS
def test_server_that_is_away_is_told(alias, name, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "/nowhere")
    monkeypatch.setitem(
        connections["default"].settings_dict,
        "OPTIONS",
        {**connections["default"].settings_dict["OPTIONS"], "host": "/nowhere"},
    )

    with pytest.raises(StoreUnavailable), lock(name, backend=alias):
        pass

    assert get_backend(alias)._sessions == {}


@LEVELS
def test_interruption_of_the_statement_ends_the_connection(alias, name, monkeypatch):
    session = get_backend(alias)

    def interrupted(self):
        try_lock(self)
        raise KeyboardInterrupt

    try_lock = LockSession.try_lock
    monkeypatch.setattr(LockSession, "try_lock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.acquire(Ask(name, "me", 30))
    monkeypatch.undo()

    assert session._sessions == {}
    wait_until(lambda: holders(name) == [])


@LEVELS
def test_child_of_a_fork_leaves_the_connection_alone(alias, name):
    backend = get_backend(alias)
    ask = Ask(name, "parent", 30)
    grant = backend.acquire(ask)

    def child(report):
        report(backend.release(grant))
        report(list(backend.renew([grant])) == [grant])
        backend.withdraw(ask)

    reports, _ = Child(child).join()

    assert reports == [False, True]
    assert list(backend.renew([grant])) == []
    assert backend.release(grant)


def test_locks_take_no_connection_of_a_pool(name, monkeypatch):
    own = connections["other"].copy()
    monkeypatch.setitem(own.settings_dict["OPTIONS"], "pool", {"min_size": 1, "max_size": 1})
    monkeypatch.setattr(connections._connections, "other", own)
    backend = build_backend("postgres")
    backend.using = "other"
    try:
        with own.cursor():
            pass
        grants = [backend.acquire(Ask(f"{name}:{number}", "me" * number, 30)) for number in (1, 2)]

        assert all(backend.release(grant) for grant in grants)
    finally:
        own.close()
        own.close_pool()


@LEVELS
@pytest.mark.parametrize("how", ["closed", "cut"])
def test_connection_that_ended_here_is_told_at_the_next_renewal(alias, name, how):
    backend = get_backend(alias)
    grant = backend.acquire(Ask(name, "me", 30))
    own = backend._sessions["me"].connection
    if how == "closed":
        own.close()
    else:
        with closing(socket.socket(fileno=os.dup(own.connection.fileno()))) as cable:
            cable.shutdown(socket.SHUT_RDWR)

    assert backend.renew([grant]) == [grant]
    assert not backend.release(grant)


@LEVELS
def test_renewal_does_not_wait_for_one_who_releases(alias, name):
    backend = get_backend(alias)
    grant = backend.acquire(Ask(name, "me", 30))

    with backend._sessions["me"].mutex:
        assert backend.renew([grant]) == []

    assert backend.release(grant)


# Tokens


@LEVELS
def test_token_is_of_the_size_of_those_that_count_microseconds(alias, name):
    held = take_and_leave(alias, name)

    now = time.time() * 1_000_000
    assert now - 86_400_000_000 < held.token < now + 60_000_000


@LEVELS
@pytest.mark.parametrize("is_inside", [False, True])
def test_missing_sequence_is_told(alias, name, is_inside):
    execute(f"ALTER SEQUENCE {SEQUENCE} RENAME TO elsewhere")
    try:
        with ExitStack() as stack:
            if is_inside:
                stack.enter_context(transaction.atomic())
            with pytest.raises(InvalidBackend, match="migrate idempotency"):
                take_and_leave(alias, name)
            execute("SELECT 1")
    finally:
        execute(f"ALTER SEQUENCE elsewhere RENAME TO {SEQUENCE}")

    with lock(name, backend=alias):
        pass


# What is shown


@LEVELS
def test_lock_is_listed_after_its_renewal_as_well(alias, name):
    backend = get_backend(alias)
    grant = backend.acquire(Ask(name, "me", 30))
    backend.renew([grant])

    (live,) = backend.live()

    assert (live.name, live.owner, live.token) == (name, "me", grant.token)
    assert 25 < live.left <= 30
    assert 0 <= live.held_for < 20
    assert backend.live(limit=0) == []
    assert backend.release(grant)


@LEVELS
def test_name_that_the_server_cuts_is_marked(alias):
    name = "€" * 255
    with lock(name, backend=alias):
        (live,) = get_backend(alias).live()

    assert live.name.endswith("…")
    assert name.startswith(live.name[:60])


def test_lock_of_another_role_is_listed_by_its_key(name, monkeypatch):
    with lock(name, backend="postgres"):
        execute("CREATE ROLE stranger LOGIN")
        try:
            with monkeypatch.context() as patch:
                patch.setitem(connection.settings_dict, "USER", "stranger")
                (live,) = get_backend("postgres").live()
        finally:
            execute("DROP ROLE stranger")

    assert live.name == f"key {lock_key(name)}"


# What is checked


@pytest.mark.parametrize(
    ("options", "message"),
    [({"using": "nowhere"}, "no database 'nowhere'"), ({"using": "file"}, "not PostgreSQL")],
)
def test_database_that_cannot_keep_the_locks_is_told(settings, monkeypatch, options, message):
    monkeypatch.setitem(
        connections.settings, "file", {**connection.settings_dict, "ENGINE": SQLITE}
    )
    settings.IDEMPOTENCY_LOCKS = {"default": POSTGRES | {"OPTIONS": options}}

    (found,) = get_backend().check()

    assert found.id == "idempotency.E034"
    assert message in found.msg


def test_driver_that_is_too_old_is_told(monkeypatch):
    monkeypatch.setattr("django.db.backends.postgresql.psycopg_any.is_psycopg3", False)

    (found,) = get_backend("postgres").check()

    assert (found.id, "psycopg 3" in found.msg) == ("idempotency.E034", True)


@pytest.mark.parametrize("options", [{"level": "row"}, {"level": None}])
def test_unknown_level_is_told(settings, options):
    settings.IDEMPOTENCY_LOCKS = {"default": POSTGRES | {"OPTIONS": options}}

    with pytest.raises(InvalidBackend, match="'transaction' or 'session'"):
        get_backend()


def test_direct_connection_passes_the_check(settings):
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": "no.such.Backend"}, **LOCKS}

    assert get_backend("postgres-session").check() == []
    assert run_checks(databases=["default"], tags=["database"]) == []


@LEVELS
def test_lease_beyond_what_the_server_counts_is_refused(alias, name):
    with pytest.raises(ValueError, match="2147483"), lock(name, backend=alias, lease=3_000_000):
        pass


def test_sequence_goes_and_comes_back_with_its_migration():
    before = take_and_leave("postgres", "a").token
    call_command("migrate", "idempotency", "0003", verbosity=0)
    try:
        with pytest.raises(InvalidBackend):
            take_and_leave("postgres", "a")
    finally:
        call_command("migrate", "idempotency", verbosity=0)

    assert take_and_leave("postgres", "a").token > before


def test_migration_is_shown_as_sql():
    sql = StringIO()

    call_command("sqlmigrate", "idempotency", "0004", stdout=sql)

    assert f"CREATE SEQUENCE {SEQUENCE}" in sql.getvalue()


def test_nobody_watches_over_what_was_rolled_back(name):
    with roll_back_savepoint(), transaction.atomic():
        lock(name, backend="postgres", on_lost=print).__enter__()

    assert not any(each.claim.name == name for each in renewal._watching.holdings)
