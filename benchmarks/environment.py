"""Where the benchmarks run: in this process, on a database that is made for them and dropped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import django

from tests.services import (
    NotStarted,
    find_redis,
    give,
    is_postgres_ready,
    postgres_folders,
    run,
    run_folder,
    running_zookeeper,
    server_user,
    serving,
    within_reach,
)

DATABASES = ("postgresql", "sqlite")


@contextmanager
def prepared(
    database: str = "postgresql", *, settings: str = "benchmarks.settings"
) -> Iterator[None]:
    """
    Set Django up on an empty database of its own until the block ends.

    It is on the server that `DATABASE_URL` names, else on a new one of the kind *database*.
    """
    with run_folder() as folder, url_of(database, folder) as url, ExitStack() as servers:
        os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": settings}
        os.environ |= {"REDIS_URL": find_redis(folder, servers).url}
        django.setup()
        from django.db import connection

        from idempotency.statistics import flush

        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        try:
            yield
        finally:
            flush()  # At the exit there is nowhere to write to.
            connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


@contextmanager
def url_of(database: str, folder: Path) -> Iterator[str]:
    if url := os.environ.get("DATABASE_URL"):
        yield url
    elif database == "sqlite":
        yield f"sqlite:///{folder}/db.sqlite3"
    else:
        with durable_postgres(folder) as url:
            yield url


@contextmanager
def durable_postgres(folder: Path) -> Iterator[str]:
    """
    Serve a new cluster that flushes each commit to the disk, and yield its URL.

    The servers of the tests do not flush. Against those a bare view would look faster than any
    that commits once as well, but has more to say before it.
    """
    binaries = next(postgres_folders(), None)
    if binaries is None:
        raise NotStarted("no PostgreSQL is installed")
    programs, user = within_reach(binaries, folder), server_user()
    data = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
    give(data, user)
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
    run([str(programs / "initdb"), *options, "-D", str(data)], folder, user)
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-p", "5432"]
    command += ["-c", "listen_addresses="]
    with serving(command, folder, partial(is_postgres_ready, data), user):
        yield f"postgresql://postgres@:5432/postgres?host={folder}"


@contextmanager
def zookeeper() -> Iterator[None]:
    """Name a ZooKeeper in the environment until the block ends, if there is one."""
    with ExitStack() as servers:
        try:
            found = servers.enter_context(running_zookeeper())
        except NotStarted:
            yield
        else:
            os.environ["ZOOKEEPER_HOSTS"] = found.hosts
            yield


def server() -> str:
    """Say what the numbers were measured on."""
    from django.db import connection

    connection.ensure_connection()
    version = ".".join(map(str, connection.get_database_version()))
    return f"{connection.display_name} {version}, Django {django.get_version()}"
