"""What is wrong with settings, told in time."""

import subprocess
import sys

import pytest
from django.core.checks import Tags, run_checks
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django_redis.pool import ConnectionFactory

from idempotency import InvalidBackend, checks, idempotent_view, lock, lock_checks
from idempotency.models import IdempotencyRecord, Statistic, TransitionLog
from idempotency.stores.database import DatabaseStore
from idempotency.tenant_checks import check_tenants
from idempotency.transitions.rows import check_log
from idempotency.view_checks import check_stores_of_views, check_transactions_of_middleware
from tests.conftest import IN_REDIS
from tests.models import Task

# Django's own checks ask SQLite what it can do.
pytestmark = pytest.mark.django_db(databases=["default", "other"])

pools = ConnectionFactory._pools
OURS = "idempotency.middleware.IdempotencyMiddleware"
ADVISORY = "idempotency.locks.postgres.AdvisoryLockBackend"


def found():
    told = [message for message in run_checks() if message.id.startswith("idempotency.")]
    return {message.id for message in told if message.obj is not Task}  # Its mood is set by hand.


def test_project_of_the_tests_has_nothing_wrong():
    assert found() == set()


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("STORES", {}, "E001"),
        ("STORES", None, "E001"),
        ("STORES", ["default"], "E001"),
        ("STORES", "default", "E001"),
        ("STORES", 1, "E001"),
        ("STORES", {"default": None}, "E002"),
        ("STORES", {"default": {"OPTIONS": None}}, "E002"),
        ("STORES", {"default": {"RETENTIONS": 1}}, "E002"),
        ("STORES", {"default": {"OPTIONS": {"usinng": "other"}}}, "E002"),
        ("STORES", {"default": IN_REDIS | {"OPTIONS": {"records": True}}}, "E002"),
        ("STORES", {"default": {"BACKEND": "idempotency.locks.HeldLock"}}, "E002"),
        ("STORES", {"default": {"LEASE": 0}}, "E002"),
        ("STORES", {"default": {"LEASE": 0.0005}}, "E002"),
        ("STORES", {"default": {"RETENTION": float("inf")}}, "E002"),
        ("STORES", {"default": {"BACKEND": "no.such.Store"}}, "E002"),
        ("STORES", {"default": {"OPTIONS": {"using": "nowhere"}}}, "E003"),
        ("STORES", {"default": {"OPTIONS": {"using": ["default"]}}}, "E003"),
        ("HEADER", "", "E011"),
        ("HEADER", None, "E011"),
        ("HEADER", "Idempotency Key", "E011"),
        ("METHODS", "POST", "E012"),
        ("METHODS", ["post"], "E012"),
        ("METHODS", ["POST", "GET"], "E012"),
        ("MAX_BODY", -1, "E013"),
        ("MAX_BODY", True, "E013"),
        ("MAX_BODY", "5 MB", "E013"),
        ("DROP_HEADERS", "Date", "E014"),
        ("DROP_HEADERS", [1], "E014"),
        ("DOCS_URL", 7, "E015"),
        ("STATISTICS", None, "E019"),
        ("STATISTICS", {"using": "default"}, "E019"),
        ("STATISTICS", {"USING": "elsewhere"}, "E019"),
        ("STATISTICS", {"INTERVAL": 0}, "E019"),
        ("STATISTICS", {"INTERVAL": "5"}, "E019"),
        ("STATISTICS", {"INTERVAL": True}, "E019"),
        ("STATISTICS", {"CALLS_PER_RECORD": -1}, "E019"),
        ("SCOPE", "no.such.function", "E016"),
        ("SCOPE", "nodots", "E016"),
        ("SCOPE", "tests.conftest.KEY", "E016"),
        ("SCOPE", lambda request: "all", "E016"),
    ],
)
def test_wrong_setting_is_told(settings, name, value, id):
    setattr(settings, f"IDEMPOTENCY_{name}", value)

    assert found() == {f"idempotency.{id}"}
    assert asked() == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORES", {"default": {}, "second": {"LEASE": 1.5, "OPTIONS": {"using": "other"}}}),
        ("HEADER", "X-Key"),
        ("METHODS", ["POST"]),
        ("MAX_BODY", 0),
        ("DROP_HEADERS", ()),
        ("DOCS_URL", "https://shop.example/"),
        ("SCOPE", "tests.test_http.tenant"),
        ("STATISTICS", False),
        ("STATISTICS", True),
        ("STATISTICS", {"USING": "other", "INTERVAL": 0.5, "CALLS_PER_RECORD": 0}),
    ],
)
def test_right_setting_is_not_told(settings, name, value):
    setattr(settings, f"IDEMPOTENCY_{name}", value)

    assert found() == set()


@pytest.mark.parametrize("place", range(7))
def test_middleware_is_told_if_a_replay_would_pass_the_others_by(settings, place):
    behind = settings.MIDDLEWARE[place:]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], OURS, *behind]

    told = [message for message in run_checks() if message.id == "idempotency.E020"]

    assert len(told) == len(set(behind) & set(checks.BEFORE))


def test_middleware_at_the_end_is_right(settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, OURS]

    assert found() == set()


class Orders(View):
    @method_decorator(idempotent_view(mode="lease"))
    def post(self, request):
        return HttpResponse("done")


urlpatterns = [
    path("", include([path("orders/", Orders.as_view())])),
    path("safe/", transaction.non_atomic_requests(Orders.as_view())),
]


@pytest.mark.parametrize("is_atomic", [True, False])
def test_method_whose_lease_django_would_wrap_is_told(settings, monkeypatch, is_atomic):
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", is_atomic)

    told = [each.msg for each in run_checks() if each.id == "idempotency.E036"]

    assert [message.partition(" ")[0] for message in told] == [
        f"{__name__}.Orders.post"
    ] * is_atomic


@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite can begin without the lock")
def test_sqlite_that_does_not_queue_is_told(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})

    assert found() == {"idempotency.W005"}


@pytest.mark.parametrize("name", ["idempotency", "idempotency.apps.IdempotencyConfig"])
@pytest.mark.parametrize("shared", [None, [], ["idempotency"]])
def test_app_of_tenants_is_told(settings, name, shared):
    settings.SHARED_APPS, settings.TENANT_APPS = shared, ["orders", name]

    assert [told.id for told in check_tenants()] == ["idempotency.E040"]


def test_app_that_tenants_share_is_right(settings):
    settings.SHARED_APPS, settings.TENANT_APPS = ["idempotency"], ["orders"]

    assert check_tenants() == []


def test_lease_in_a_transaction_of_a_middleware_is_told(settings):
    @idempotent_view
    async def waiting(request):
        """Have a lease, as every asynchronous view."""

    @idempotent_view(mode="lease")
    def leased(request):
        """Have a lease as well."""

    @idempotent_view
    def atomic(request):
        """Be part of the transaction."""

    views = [waiting, leased, atomic, HttpResponse]
    settings.ROOT_URLCONF = tuple(path(f"{view.__name__}/", view) for view in views)
    assert check_transactions_of_middleware() == []
    settings.MIDDLEWARE = ["reversion.middleware.RevisionMiddleware", *settings.MIDDLEWARE]

    told = check_transactions_of_middleware()

    assert {message.id for message in told} == {"idempotency.E041"}
    assert [message.msg.partition(" ")[0].rpartition(".")[2] for message in told] == [
        "leased",
        "waiting",
    ]


def test_database_that_cannot_keep_records_is_told(monkeypatch):
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")

    assert "idempotency.E003" in {told.id for told in checks.check_stores()}


def test_two_packages_with_the_same_files_are_told(monkeypatch):
    monkeypatch.setattr(checks.metadata, "distribution", lambda name: name)

    assert found() == {"idempotency.E006"}


@pytest.mark.django_db(transaction=True)
def test_table_that_keeps_no_keys_apart_is_told():
    table = connection.ops.quote_name(IdempotencyRecord._meta.db_table)
    broken = connection.ops.quote_name("no_primary_key")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {broken} AS SELECT * FROM {table}")  # noqa: S608
    try:
        assert checks._has_primary_key("default", IdempotencyRecord._meta.db_table)
        assert checks._has_primary_key("default", "no_such_table")
        assert not checks._has_primary_key("default", "no_primary_key")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {broken}")


@pytest.mark.django_db(databases=["default", "other"])
def test_tables_are_looked_at_by_name_of_their_database():
    assert checks.check_tables(databases=list(connections)) == []
    assert checks.check_tables() == []


@pytest.mark.django_db
def test_broken_table_is_an_error(monkeypatch):
    monkeypatch.setattr(checks, "_has_primary_key", lambda alias, table: False)

    assert [message.id for message in checks.check_tables(databases=["default"])] == [
        "idempotency.E004"
    ]


@pytest.mark.parametrize(
    ("statistics", "told"), [({}, True), ({"USING": "other"}, False), (False, False)]
)
@pytest.mark.django_db(databases=["default", "other"])
def test_statistics_without_a_table_are_told(settings, monkeypatch, statistics, told):
    settings.IDEMPOTENCY_STATISTICS = statistics
    monkeypatch.setitem(Statistic._meta.__dict__, "db_table", "no_table")

    found = checks.check_services(databases=["default"])
    assert ["IDEMPOTENCY_STATISTICS" in one.msg for one in found] == [True] * told


def test_table_that_is_missing_is_told_if_databases_may_be_asked(not_migrated):
    told = [*checks.check_services(databases=["default"])]
    told += lock_checks.check_lock_services(databases=["default"])

    assert {one.id for one in told} == {"idempotency.W037"}
    assert [one.msg.partition(" has ")[0] for one in told] == [
        "IDEMPOTENCY_STORES['default']: The database 'default'",
        "IDEMPOTENCY_LOCKS['default']: The database 'default'",
    ]
    assert all("manage.py migrate idempotency --database default" in one.msg for one in told)
    assert checks.check_services(databases=["other"]) == []
    assert found() == set()


class NoneElsewhere:
    """A router that keeps the tables of the app out of one database."""

    def allow_migrate(self, db, app_label, **hints):
        return db != "default"


def test_table_that_a_router_forbids_is_told_as_that(not_migrated, settings):
    settings.DATABASE_ROUTERS = [NoneElsewhere()]
    (found,) = checks.check_services(databases=["default"])

    assert found.msg.endswith(
        "as DATABASE_ROUTERS lets none be made there: allow it, or name another one."
    )


@pytest.mark.django_db
def test_missing_log_of_transitions_is_told(monkeypatch):
    monkeypatch.setitem(TransitionLog._meta.__dict__, "db_table", "no_table")

    assert [one.id for one in check_log(databases=["default"])] == ["idempotency.W037"]
    assert check_log(databases=["other"]) == check_log(databases=None) == []


def test_store_looks_after_its_own_settings(settings):
    settings.IDEMPOTENCY_STORES = {"default": {}}

    assert isinstance(checks.build_store("default"), DatabaseStore)


def test_locks_are_fine_as_they_are():
    assert lock_checks.check_locks() == []
    assert lock_checks.check_leases() == []


@pytest.mark.parametrize(
    "locks",
    [
        {},
        {"default": {"BACKEND": "idempotency.locks.NoSuchBackend"}},
        {"default": {"LEASE": 0}},
        {"default": {"LEASE": 0.0005}},
        {"default": {"LEASE": "30"}},
        {"default": {"LEASE": float("inf")}},
        {"default": {"LEASE": 1e12}},
        {"default": {"BACKEND": "no.such.module.Backend"}},
        None,
        ["default"],
        "default",
        1,
        {"default": None},
        {"default": {"LEASES": 30}},
        {"default": {"OPTIONS": None}},
        {"default": {"OPTIONS": {"usinng": "other"}}},
        {"default": {"BACKEND": None}},
        {"default": {"BACKEND": "datetime.timedelta"}},
        {"default": {"BACKEND": "idempotency.locks.HeldLock"}},
        {"default": {"BACKEND": "idempotency.locks.get_backend"}},
        {"default": {"BACKEND": ADVISORY, "OPTIONS": {"level": ["session"]}}},
        {"default": {"BACKEND": ADVISORY, "LEASE": 2_147_484}},
    ],
)
def test_lock_backend_that_cannot_be_made_is_an_error(settings, locks):
    settings.IDEMPOTENCY_LOCKS = locks

    assert [one.id for one in lock_checks.check_locks()] == ["idempotency.E017"]
    assert found() >= {"idempotency.E017"}
    assert not asked()


@pytest.mark.parametrize("using", ["nowhere", ["default"]])
def test_lock_backend_with_an_unknown_database_is_an_error(settings, using):
    settings.IDEMPOTENCY_LOCKS = {"default": {"OPTIONS": {"using": using}}}

    assert [found.id for found in lock_checks.check_locks()] == ["idempotency.E018"]
    assert not asked()


@pytest.mark.parametrize("locks", [["default"], "default", None])
def test_lock_cannot_be_taken_while_its_setting_is_no_dict(settings, locks):
    settings.IDEMPOTENCY_LOCKS = locks

    with pytest.raises(InvalidBackend, match="IDEMPOTENCY_LOCKS is a dict"), lock("a"):
        pass


@pytest.mark.parametrize("arguments", ["--timeout 60", "--timeout=60", "-t 60", "-w 4 -t60"])
def test_lease_that_a_gunicorn_worker_may_outlive_is_warned_about(monkeypatch, settings, arguments):
    settings.IDEMPOTENCY_LOCKS = {"default": {}}
    monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)

    found = lock_checks.check_leases()

    assert {message.id for message in found} == {"idempotency.W035"}
    assert len(found) == 2  # That of the store and that of the locks.


def test_lease_that_a_celery_task_may_outlive_is_warned_about(settings):
    settings.CELERY_TASK_TIME_LIMIT = 31
    settings.IDEMPOTENCY_LOCKS = {"default": {"LEASE": 32}}

    (found,) = lock_checks.check_leases()

    assert "STORES" in found.msg


def in_redis(settings, alias="own", **changes):
    """Keep records in the Redis of the cache *alias*, which differs in *changes* from "own"."""
    pools.clear()  # They are known by address alone.
    settings.CACHES = {**settings.CACHES, alias: {**settings.CACHES["own"], **changes}}
    store = {"BACKEND": "idempotency.stores.redis.RedisStore", "OPTIONS": {"cache": alias}}
    settings.IDEMPOTENCY_STORES = {"default": store}


def asked():
    """Give what is told if databases may be asked as well."""
    told = run_checks(tags=[Tags.database], databases=["default"])
    return {message.id for message in told if message.id.startswith("idempotency.")}


def test_redis_of_its_own_has_nothing_wrong(settings, own_redis):
    in_redis(settings)

    assert found() == asked() == set()


@pytest.mark.parametrize(
    "kind", ["locmem.LocMemCache", "dummy.DummyCache", "filebased.FileBasedCache"]
)
def test_cache_that_decides_nothing_between_processes_is_no_place_for_records(
    settings, own_redis, kind, tmp_path
):
    backend = f"django.core.cache.backends.{kind}"
    in_redis(settings, "own", BACKEND=backend, LOCATION=str(tmp_path), OPTIONS={})

    assert found() == {"idempotency.E030"}
    assert asked() == set()


def test_cache_that_is_not_there_is_told(settings):
    store = {"BACKEND": "idempotency.stores.redis.RedisStore", "OPTIONS": {"cache": "nowhere"}}
    settings.IDEMPOTENCY_STORES = {"default": store}

    assert found() == {"idempotency.E030"}


def test_database_behind_redis_that_is_not_there_is_told(settings, own_redis):
    in_redis(settings)
    options = {"cache": "own", "record": True, "using": "nowhere"}
    settings.IDEMPOTENCY_STORES["default"]["OPTIONS"] = options

    assert found() == {"idempotency.E003"}


@pytest.mark.parametrize("place", ["alias", "project"])
def test_ignored_errors_of_redis_are_told(settings, own_redis, place):
    if place == "project":
        settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = True
    in_redis(settings, OPTIONS={"IGNORE_EXCEPTIONS": True} if place == "alias" else {})

    assert found() == {"idempotency.W031"}


def test_cache_that_may_be_cleared_is_told(settings, own_redis):
    in_redis(settings, "default")

    assert found() == {"idempotency.W033"}


def test_cache_that_shares_its_database_with_another_is_told(settings, own_redis):
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    settings.CACHES = {"local": local, **settings.CACHES, "pages": settings.CACHES["own"]}
    in_redis(settings)
    assert found() == {"idempotency.W033"}

    in_redis(settings, LOCATION=f"{settings.CACHES['own']['LOCATION']}?db=1")
    assert found() == set()


@pytest.mark.parametrize(
    "together", [str, lambda url: f"redis://10.0.0.1,{url}", lambda url: [url]]
)
def test_cache_that_shares_its_database_with_one_of_django_is_told(settings, own_redis, together):
    location = together(settings.CACHES["own"]["LOCATION"])
    of_django = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}
    settings.CACHES = {**settings.CACHES, "pages": of_django}
    in_redis(settings)
    assert found() == {"idempotency.W033"}

    settings.CACHES = {**settings.CACHES, "pages": of_django | {"LOCATION": "here"}}
    assert found() == set()


def test_address_without_a_scheme_is_told(settings, own_redis):
    in_redis(settings, LOCATION="127.0.0.1:6379")

    (told,) = checks.check_stores()

    assert told.id == "idempotency.E030"
    assert "write it like 'redis://127.0.0.1:6379/1'" in told.msg
    assert asked() == set()


def test_address_without_a_scheme_of_another_cache_is_passed_over(settings, own_redis):
    settings.CACHES = {**settings.CACHES, "pages": {**settings.CACHES["own"], "LOCATION": "here"}}
    in_redis(settings)

    assert found() == set()


def test_redis_that_throws_records_away_is_told_if_it_may_be_asked(settings, own_redis):
    in_redis(settings)
    own_redis.tell("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")

    assert (found(), asked()) == (set(), {"idempotency.W032"})


def test_redis_that_throws_nothing_away_yet_is_fine(settings, own_redis):
    in_redis(settings)
    own_redis.tell("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    assert asked() == set()


def test_redis_that_is_away_is_told_if_it_may_be_asked(settings, own_redis):
    in_redis(settings)
    own_redis.stop()

    assert (found(), asked()) == (set(), {"idempotency.W034"})


@pytest.mark.parametrize(
    ("place", "words"),
    [("", "cannot be used: Authentication"), ("?db=99", "DB index is out of range")],
)
def test_redis_that_refuses_is_told_in_its_own_words(settings, own_redis, place, words):
    if not place:
        own_redis.tell("CONFIG", "SET", "requirepass", "secret")
    in_redis(settings, LOCATION=settings.CACHES["own"]["LOCATION"] + place)

    (told,) = checks.check_services(databases=["default"])

    assert told.id == "idempotency.W034"
    assert words in told.msg


def test_store_that_cannot_be_made_is_told_once(settings):
    settings.IDEMPOTENCY_STORES = {"default": {"LEASE": 0}}

    assert asked() == set()


@pytest.mark.parametrize(
    "cache",
    [
        "django.core.cache.backends.locmem.LocMemCache",
        "django.core.cache.backends.dummy.DummyCache",
        "django.core.cache.backends.filebased.FileBasedCache",
    ],
)
def test_cache_that_decides_nothing_cannot_keep_locks(settings, cache, tmp_path):
    settings.CACHES = {"default": {"BACKEND": cache, "LOCATION": str(tmp_path)}}
    in_redis = "idempotency.locks.redis.RedisLockBackend"
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": in_redis}}

    assert [found.id for found in lock_checks.check_locks()] == ["idempotency.E030"]


def test_being_woken_up_needs_time_for_an_answer(settings):
    redis = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/7"}
    settings.CACHES = {"locks": redis | {"OPTIONS": {"SOCKET_TIMEOUT": 0.1}}}
    in_redis = "idempotency.locks.redis.RedisLockBackend"
    settings.IDEMPOTENCY_LOCKS = {"default": {"BACKEND": in_redis, "OPTIONS": {"cache": "locks"}}}

    assert [found.id for found in lock_checks.check_locks()] == ["idempotency.W036"]


BARE = """
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["idempotency"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "%s",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
    },
    TEMPLATES=[
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
    ],
)
django.setup()

from django.core.management import call_command
from django.template import engines

call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
call_command("idempotency_status")
call_command("clear_idempotency_records")
assert engines["django"].from_string("{{ 1 }}").render() == "1"
"""


def test_project_needs_no_other_app_of_django(tmp_path):
    program = BARE % (tmp_path / "bare.sqlite3")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "0 duplicates stopped" in done.stdout


def test_setting_that_does_not_exist_is_told(settings):
    settings.IDEMPOTENCY_RETENTION = 5
    settings.IDEMPOTENCY_STORE = {}
    settings.IDEMPOTENCY_KEY_LOCK_TIMEOUT = 30  # Of django-idempotency-key.

    told = [message for message in run_checks() if message.id == "idempotency.W043"]

    names = [message.msg.rpartition(" ")[2] for message in told]
    assert names == ["IDEMPOTENCY_RETENTION.", "IDEMPOTENCY_STORE."]


def test_store_that_does_not_exist_is_told(settings):
    views = [idempotent_view(store=store)(lambda request: None) for store in ("away", "default")]
    settings.ROOT_URLCONF = tuple(path(f"{at}/", view) for at, view in enumerate(views))

    assert [told.id for told in check_stores_of_views()] == ["idempotency.E042"]


def test_asynchronous_method_that_django_would_wrap_is_told(settings, monkeypatch):
    class ByMethod(View):
        @idempotent_view
        async def post(self, request):
            return HttpResponse()

    settings.ROOT_URLCONF = (path("view/", ByMethod.as_view()),)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)

    assert "idempotency.E036" in {told.id for told in run_checks()}
