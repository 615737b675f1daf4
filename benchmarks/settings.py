"""Settings of the benchmarks: a database of their own on the server of `DATABASE_URL`."""

import os
from importlib.util import find_spec
from typing import Any

from config.settings import database


def own_database() -> dict[str, Any]:
    """Describe a database of this run alone, and a connection that stays open as in a server."""
    server = database(os.environ["DATABASE_URL"])
    if server["ENGINE"] == "django.db.backends.sqlite3":
        name = f"{server['NAME']}-{os.getpid()}"
    else:
        name = f"idempotency_benchmark_{os.getpid()}"
    return server | {"NAME": name, "TEST": {"NAME": name}, "CONN_MAX_AGE": None}


PEERS = [app for app in ("drf_idempotency", "rest_framework_idempotency_key") if find_spec(app)]

DATABASES = {"default": own_database()}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "idempotency",
    "benchmarks",
    *PEERS,
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "benchmarks.urls"
ALLOWED_HOSTS = ["testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "benchmarks sign nothing"  # noqa: S105
USE_TZ = True

# What the peers read: each keeps its records in the same database, as the contest is about that.
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "benchmarks_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000_000},
    },
}
if os.environ.get("REDIS_URL"):
    CACHES["records"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["REDIS_URL"],
        "KEY_PREFIX": f"benchmark-{os.getpid()}",
    }
    CACHES["locks"] = CACHES["records"] | {"KEY_PREFIX": "benchmark"}
IN_REDIS = {"BACKEND": "idempotency.stores.redis.RedisStore", "OPTIONS": {"cache": "records"}}
IDEMPOTENCY_STORES = {
    "default": {},
    "redis": IN_REDIS,
    "both": IN_REDIS | {"OPTIONS": {"cache": "records", "record": True}},
}
IDEMPOTENCY_LOCKS = {
    "default": {},
    "cache": {
        "BACKEND": "idempotency.locks.redis.RedisLockBackend",
        "OPTIONS": {"cache": "locks"},
    },
    "advisory": {
        "BACKEND": "idempotency.locks.postgres.AdvisoryLockBackend",
        "OPTIONS": {"level": "session"},
    },
    "transaction": {"BACKEND": "idempotency.locks.postgres.AdvisoryLockBackend"},
    "zookeeper": {
        "BACKEND": "idempotency.locks.zookeeper.ZooKeeperLockBackend",
        "OPTIONS": {"hosts": os.environ.get("ZOOKEEPER_HOSTS", "")},
    },
}
IDEMPOTENCY_KEY = {
    "CONFLICT_STATUS_CODE": None,
    "STORAGE": {"CLASS": "idempotency_key.storage.CacheKeyStorage", "CACHE_NAME": "database"},
}
IDEMPOTENCY_KEY_LOCK_TIMEOUT = 30
