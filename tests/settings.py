"""
Settings of the tests: two databases of this run alone, on the server of `config.settings`.

Records and locks in Redis have the prefix of this run, and database numbers of their own.
"""

import os
from typing import Any

from config.settings import *  # noqa: F403
from config.settings import DATABASES as SERVERS
from config.settings import INSTALLED_APPS as EXAMPLE_APPS
from config.settings import REDIS_URL

RUN = os.environ.get("TEST_RUN", "local")


def own_database(alias: str) -> dict[str, Any]:
    """
    Describe the database *alias* of this run.

    Its name is the same before the tests and during them: a process that a test starts with these
    settings meets the test's data. SQLite gets a file for the same reason.
    """
    server = SERVERS["default"]
    if server["ENGINE"] == "django.db.backends.sqlite3":
        name = f"{server['NAME']}-{RUN}-{alias}"
    else:
        name = f"idempotency_{RUN}_{alias}"
    return server | {"NAME": name, "TEST": {"NAME": name}, "CONN_MAX_AGE": 0}


DATABASES = {alias: own_database(alias) for alias in ("default", "other")}
INSTALLED_APPS = [*EXAMPLE_APPS, "tests"]
ROOT_URLCONF = "tests.urls"
SECRET_KEY = "the tests sign with this"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

if REDIS_URL:
    CACHE = {"BACKEND": "django_redis.cache.RedisCache", "KEY_PREFIX": RUN}
    CACHES = {
        "default": CACHE | {"LOCATION": REDIS_URL},
        "locks": CACHE | {"LOCATION": f"{REDIS_URL}?db=14"},
        "records": CACHE | {"LOCATION": f"{REDIS_URL}?db=15"},
    }
