"""The services of a run: they answer, end with it, and their absence is told."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis

from tests.services import NotStarted, Services, do_without, running, running_zookeeper

ROOT = Path(__file__).resolve().parent.parent
OTHER_RUN = """
import json, sys
from tests.services import running

with running() as services:
    print(json.dumps(services.environment), flush=True)
    sys.stdin.read()
"""
NOTHING_INSTALLED = """
from pathlib import Path
from tests import services

services.DEBIAN_POSTGRES = Path("/nowhere")
services.package_folders = lambda name: []
"""


@pytest.fixture(scope="module", autouse=True)
def _apart() -> Iterator[None]:
    """Have neither the services that were given nor the folders of other runs, which sweep ours."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="apart-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - the servers' user reads it.
        patch.setenv("TMPDIR", folder)
        patch.setattr("tempfile.tempdir", folder)
        patch.delenv("DATABASE_URL", raising=False)
        patch.delenv("REDIS_URL", raising=False)
        yield


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with running() as services:
        if services.absent:
            pytest.skip("; ".join(services.absent))
        yield services


@pytest.fixture
def other_run(services: Services) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER_RUN]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as run:
        yield run
        run.kill()


def environment(run: subprocess.Popen[str]) -> dict[str, str]:
    assert run.stdout is not None
    return dict(json.loads(run.stdout.readline()))


def folder(url: str) -> Path:
    return Path(url.partition("?host=")[2])


def ask_postgres(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def watch_servers(urls: dict[str, str]) -> list[int]:
    """Return a descriptor for each server, readable when it has ended."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("only Linux ends children with their parent")
    process = "split_part(pg_read_file('postmaster.pid'), chr(10), 1)"
    postgres = ask_postgres(urls["DATABASE_URL"], f"SELECT {process}::int")
    with redis.Redis.from_url(urls["REDIS_URL"]) as client:
        valkey = client.info("server")["process_id"]
    return [os.pidfd_open(int(str(process))) for process in (postgres, valkey)]


def ends(descriptor: int) -> bool:
    ready, _, _ = select.select([descriptor], [], [], 30)
    os.close(descriptor)
    return bool(ready)


def run_pytest(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (path / "nothing_installed.py").write_text(NOTHING_INSTALLED)
    (path / "test_nothing.py").write_text("def test_nothing(): pass")
    plugins = ["-p", "tests.services", "-p", "nothing_installed", "-p", "no:django"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugins]
    ours = {"CI", "PATH", "PYTEST_XDIST_WORKER"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    python_path = f"{ROOT}{os.pathsep}{path}"
    return subprocess.run(
        command,
        cwd=path,
        env=inherited | {"PYTHONPATH": python_path, "PATH": ""} | variables,
        capture_output=True,
        text=True,
    )


def test_started_servers_answer(services: Services) -> None:
    version = ask_postgres(services.database_url, "SELECT version()")
    with redis.Redis.from_url(services.redis_url) as client:
        alive = client.ping()

    assert str(version).startswith("PostgreSQL")
    assert alive


def test_postgres_bears_many_connections(services: Services) -> None:
    assert ask_postgres(services.database_url, "SHOW max_connections") == "200"


def test_ended_run_leaves_nothing_behind(other_run: subprocess.Popen[str]) -> None:
    urls = environment(other_run)
    descriptors = watch_servers(urls)

    other_run.communicate(timeout=30)

    assert other_run.returncode == 0
    assert [ends(descriptor) for descriptor in descriptors] == [True, True]
    assert not folder(urls["DATABASE_URL"]).exists()


def test_given_services_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://given/database")
    monkeypatch.setenv("REDIS_URL", "redis://given")

    with running() as services:
        assert services.environment == {
            "DATABASE_URL": "postgresql://given/database",
            "REDIS_URL": "redis://given",
        }


def test_killed_run_takes_its_servers_along(other_run: subprocess.Popen[str]) -> None:
    descriptors = watch_servers(environment(other_run))

    other_run.kill()

    assert [ends(descriptor) for descriptor in descriptors] == [True, True]


def test_next_run_sweeps_after_a_killed_one(other_run: subprocess.Popen[str]) -> None:
    urls = environment(other_run)
    path = folder(urls["DATABASE_URL"])
    descriptors = watch_servers(urls)
    other_run.kill()
    other_run.wait()
    assert all(ends(descriptor) for descriptor in descriptors)
    assert path.exists()

    with running():
        assert not path.exists()


def test_next_run_spares_a_living_one(services: Services, other_run: subprocess.Popen[str]) -> None:
    urls = environment(other_run)

    assert services.database_url != urls["DATABASE_URL"]
    assert ask_postgres(services.database_url, "SELECT 1") == 1
    assert ask_postgres(urls["DATABASE_URL"], "SELECT 1") == 1


def test_absent_service_is_told_loudly(tmp_path: Path) -> None:
    run = run_pytest(tmp_path)

    assert run.returncode == pytest.ExitCode.OK
    assert run.stdout.count("WARNING: SQLite stands in for PostgreSQL") == 2
    assert run.stdout.count("WARNING: no Redis") == 2


def test_absent_service_fails_in_ci(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, CI="true")

    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "SQLite stands in for PostgreSQL: no server is installed" in run.stderr


def test_given_zookeeper_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOKEEPER_HOSTS", "given:2181")

    with running_zookeeper() as server:
        assert (server.hosts, server.process) == ("given:2181", None)


@pytest.mark.parametrize(
    ("ci", "end"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_tests_do_without_zookeeper_except_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, end: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("ZOOKEEPER_HOSTS", raising=False)

    with pytest.raises(NotStarted, match="no Java") as caught, running_zookeeper():
        pass
    with pytest.raises(end, match="no ZooKeeper: no Java"):
        do_without("ZooKeeper", caught.value)
