"""The documentation: its examples run, its links lead somewhere, and its tables are complete."""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import global_settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core import mail
from django.core.management import call_command, get_commands, load_command_class
from django.db import connection, connections, models
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.test.utils import isolate_apps
from django.urls import path
from django.utils.module_loading import import_string

import idempotency
from idempotency import (
    KeyInProgress,
    KeyReused,
    checks,
    exceptions,
    lock,
    lock_checks,
    setting_checks,
    signals,
    transitions,
)
from idempotency.conf import LOCK, STATISTICS, STORE
from idempotency.conf import Settings as OurSettings
from idempotency.contrib import drf
from idempotency.exceptions import IdempotencyError
from idempotency.http.problems import PROBLEMS, TYPE, problem_response
from idempotency.http.responses import FREEING
from idempotency.models import IdempotencyRecord
from orders.models import Order, Product
from tests.conftest import IN_REDIS, redis_records

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEY = "0198c5a2-7c1e-7b53-9d3c-2f1f0f6f3a11"

FENCE = re.compile(
    r"^(?P<fence>```+)(?:\{(?P<directive>[\w:-]+)\} *)?(?P<language>[\w-]*)[^\n]*\n"
    r"(?P<options>(?::[^\n]*\n)*)(?P<text>.*?)^(?P=fence) *$",
    re.M | re.S,
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.M)
HEADING = re.compile(r"^#{1,3} (.+)$", re.M)
SIGNATURE = re.compile(r"^[`:]{3,}\{py:(?:function|method)\} ([\w.]+)(\(.*\))$", re.M)
OBJECT = re.compile(r"^[`:]{3,}\{py:\w+\} ([\w.]+)", re.M)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page: its language, its caption and its text."""

    language: str
    text: str
    line: int = 0
    caption: str = ""


@dataclass(slots=True)
class Step:
    """A command of a console block, and what is printed after it."""

    command: str
    output: str = ""
    words: list[str] = field(default_factory=list)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@cache
def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        caption = re.search(r"^:caption: (.+)$", match["options"], re.M)
        line = text[: match.start("text")].count("\n")
        found.append(Block(match["language"], match["text"], line, caption[1] if caption else ""))
    return found


def steps(block: Block) -> list[Step]:
    """Give the commands of a console block, with what each prints."""
    found: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line.removeprefix("$ ")))
        elif found and found[-1].command.endswith("\\"):
            found[-1].command = found[-1].command.removesuffix("\\") + line.strip()
        else:
            found[-1].output += line + "\n"
    for step in found:
        step.words = shlex.split(step.command)
    return found


# Requests


def request_of(words: list[str]) -> dict[str, Any]:
    """Give what a curl command would send, as arguments of Django's test client."""
    assert words[:2] == ["curl", "-i"], words
    place = next(number for number, word in enumerate(words) if word.startswith("http://"))
    address = words.pop(place)
    options = list(zip(words[2::2], words[3::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    given = {option: value for option, value in options if option != "-H"}
    return {
        "method": given.get("-X", "POST"),
        "path": address.removeprefix("http://127.0.0.1:8000"),
        "data": given.get("-d", ""),
        "content_type": headers.pop("Content-Type", "application/octet-stream"),
        "headers": headers,
    }


def compare(expected: str, status: int, headers: dict[str, str], body: str) -> None:
    """Check what a console block shows of a response; `…` stands for anything."""
    head, _, expected_body = expected.strip().partition("\n\n")
    status_line, *header_lines = head.splitlines()
    # Its phrase is not compared: Python 3.13 renamed some.
    assert status_line.split()[:2] == ["HTTP/1.1", str(status)], body[:2_000]
    for line in header_lines:
        header, _, value = line.partition(": ")
        assert matches(value, headers.get(header, "")), (line, headers)
    assert ("Idempotent-Replayed" in headers) == ("Idempotent-Replayed" in head)
    assert not expected_body or matches(expected_body, body), body


def matches(expected: str, actual: str) -> bool:
    pattern = ".*".join(re.escape(re.sub(r"\s", "", part)) for part in expected.split("…"))
    return re.fullmatch(pattern, re.sub(r"\s", "", actual), re.S) is not None


# The tutorial

DRIVER = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO

import django
from django.core.management import execute_from_command_line
from django.test import Client

django.setup()
answers = []
for kind, step in json.load(sys.stdin):
    printed = StringIO()
    if kind == "command":
        with redirect_stdout(printed):
            execute_from_command_line(["manage.py", *step])
        answers.append(printed.getvalue())
    else:
        client = Client(raise_request_exception=False, SERVER_NAME="127.0.0.1")
        response = client.generic(**step)
        answers.append([response.status_code, dict(response.items()), response.text])
print("\\n" + json.dumps(answers))
"""


NO_SYNC = """
DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}
"""


class Project:
    """What a reader of the tutorial has on disk, and the commands not yet given in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.due: list[Step] = []
        self.answered = 0

    def give(self, step: Step) -> None:
        """Note a command; those that need the network or do not end are left out."""
        if step.words[0] == "django-admin":
            _, command, package, place = step.words
            call_command(command, package, str(self.folder / place))
            with (self.folder / package / "settings.py").open("a") as file:
                file.write(NO_SYNC)
        elif step.words[2] == "startapp":
            (self.folder / step.words[3]).mkdir()
            call_command("startapp", step.words[3], str(self.folder / step.words[3]))
        elif step.words[2] not in ("pip", "runserver"):
            self.due.append(step)

    def write(self, block: Block) -> None:
        """Write the file that the reader now has; settings replace those of the same name."""
        if any(is_curl(step) for step in self.due):
            self.answer()
        path = self.folder / block.caption
        before = path.read_text() if path.name == "settings.py" else ""
        path.write_text(f"{before}\n{block.text}" if before else block.text)

    def answer(self) -> None:
        """Give the commands that are due, all in one process, and compare what they print."""
        steps = [
            ("request", request_of(step.words)) if is_curl(step) else ("command", step.words[2:])
            for step in self.due
        ]
        for step, answer in zip(self.due, self._run(steps), strict=True):
            self.answered += is_curl(step)
            if is_curl(step):
                compare(step.output, *answer)
            elif step.output:
                assert answer == step.output
        self.due = []

    def _run(self, steps: list[Any]) -> list[Any]:
        environment = {
            "DJANGO_SETTINGS_MODULE": "teashop.settings",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",  # It would take files of the same second for equal.
        }
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            cwd=self.folder,
            env=environment,
            input=json.dumps(steps),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return answers


def is_curl(step: Step) -> bool:
    return step.words[0] == "curl"


def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    project = Project(tmp_path)

    for block in blocks(ROOT / "docs" / "tutorial.md"):
        if block.language == "console":
            for step in steps(block):
                project.give(step)
        else:
            project.write(block)
    project.answer()

    assert project.answered == 8


# The examples of the other pages


@contextmanager
def world() -> Iterator[dict[str, Any]]:
    """Give the names that examples find: an order, and a bank that is really called."""
    product, _ = Product.objects.get_or_create(
        name="Kettle", defaults={"price": 1_000, "stock": 10_000}
    )
    order = Order.objects.place(product, quantity=10)
    bank = SimpleNamespace(charges=[])
    bank.charge = lambda amount, *, idempotency_key: (
        bank.charges.append(idempotency_key) or len(bank.charges)
    )
    stores = override_settings(IDEMPOTENCY_STORES={"default": {}, "redis": IN_REDIS})
    with isolate_apps("tests"), registry_of_the_admin(), stores:
        yield {
            "__name__": "tests.examples",
            "order": order,
            "product": product,
            "bank": bank,
            "held_by_another": held_by_another,
        }


@contextmanager
def held_by_another(name: str) -> Iterator[None]:
    """Hold a lock as somebody else does: in a context of its own."""
    context, held = Context(), lock(name)
    context.run(held.__enter__)
    yield
    context.run(held.__exit__, None, None, None)


@contextmanager
def registry_of_the_admin() -> Iterator[None]:
    """Take back what an example registers."""
    before = dict(admin.site._registry)
    try:
        yield
    finally:
        admin.site._registry = before


def run(page: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Run all Python of *page* in its order, with the tables of the models that it makes."""
    for block in blocks(page):
        if block.language == "python" and not is_settings(block):
            before = set(names)
            text = "\n" * block.line + block.text
            exec(compile(text, str(page), "exec"), names)  # noqa: S102 - It is ours.
            for model in models_among(names, set(names) - before):
                with connection.schema_editor() as editor:
                    editor.create_model(model)
        elif block.language == "pycon":
            example = doctest.DocTestParser().get_doctest(
                block.text, names, name(page), str(page), block.line
            )
            example.globs = names
            output: list[str] = []
            doctest.DocTestRunner(verbose=False).run(example, out=output.append, clear_globs=False)
            assert not output, "".join(output)
    return names


def models_among(names: dict[str, Any], new: set[str]) -> list[Any]:
    return [
        names[key]
        for key in new
        if isinstance(names[key], type) and names[key].__module__ == "tests.examples"
        if issubclass(names[key], models.Model)
    ]


def is_settings(block: Block) -> bool:
    """Whether a block is all assignments to names in capitals."""
    return all(
        isinstance(node, ast.Assign) and all(ast.unparse(to).isupper() for to in node.targets)
        for node in ast.parse(block.text).body
    )


@contextmanager
def examples(page: str) -> Iterator[dict[str, Any]]:
    """Give the names that the examples of *page* make, and drop its tables in the end."""
    with world() as names:
        run(ROOT / page, names)
        yield names
        for model in models_among(names, set(names)):
            with connection.schema_editor() as editor:
                editor.delete_model(model)


on_databases = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@on_databases
@pytest.mark.usefixtures("empty_redis")
def test_all_python_runs() -> None:
    for page in PAGES:
        if page.name != "tutorial.md":
            with examples(name(page)):
                pass


@each_page
def test_all_settings_exist_and_pass_the_checks(page: Path) -> None:
    for block in blocks(page):
        if block.language != "python" or not is_settings(block):
            continue
        names: dict[str, Any] = {}
        exec(block.text, names)  # noqa: S102 - It is ours.
        given = {key: value for key, value in names.items() if key.isupper()}

        assert all(is_setting(key) for key in given), given
        tried = {key: value for key, value in given.items() if key not in UNTRIED}
        with override_settings(**{"IDEMPOTENCY_LOCKS": {"default": {}}, **tried}):
            found = [
                *setting_checks.check_settings(app_configs=None),
                *checks.check_stores(app_configs=None),
                *checks.check_middleware(app_configs=None),
                *lock_checks.check_locks(app_configs=None),
            ]
        assert not [message for message in found if message.id not in other_databases()]


def other_databases() -> set[str]:
    """Give the checks that the pages' settings pass on the database that they are for."""
    return set() if connection.vendor == "postgresql" else {"idempotency.E034"}


UNTRIED = {"INSTALLED_APPS", "DATABASES"}
OF_OTHERS = {"REST_FRAMEWORK", "CORS_ALLOW_HEADERS", "CORS_EXPOSE_HEADERS"}


def is_setting(key: str) -> bool:
    ours = key.removeprefix("IDEMPOTENCY_")
    return (
        hasattr(global_settings, key)
        or key in OF_OTHERS
        or (ours != key and ours in vars(OurSettings))
    )


@on_databases
@pytest.mark.parametrize("page", ["README.md", "docs/reference/http.md"])
def test_all_curls_are_answered_as_shown(page: str) -> None:
    Product.objects.get_or_create(pk=1, defaults={"name": "Pot", "price": 100, "stock": 10})
    shown = [step for block in blocks(ROOT / page) for step in console(block)]
    curls = [step for step in shown if is_curl(step)]

    assert len(curls) >= 2
    for step in curls:
        response = Client().generic(**request_of(step.words))
        compare(step.output, response.status_code, dict(response.items()), response.text)


def console(block: Block) -> list[Step]:
    return steps(block) if block.language == "console" else []


@each_page
def test_all_commands_exist(page: Path) -> None:
    for step in [step for block in blocks(page) for step in console(block)]:
        if step.words[:2] == ["python", "manage.py"]:
            command, *arguments = step.words[2:]
            app = get_commands()[command]
            parser = load_command_class(app, command).create_parser("manage.py", command)
            parser.parse_args(arguments)


# What the pages say about their examples


def post(view: Any, data: Any = None, *, key: str | None = KEY, user: Any = None, **extra: Any):
    headers = {"Idempotency-Key": key} if key else {}
    request = RequestFactory().post("/", data, headers=headers | extra.pop("headers", {}), **extra)
    request.user = user or AnonymousUser()
    return view(request)


@on_databases
def test_a_protected_view_is_as_its_page_says() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        form = {"product": page["product"].pk}
        by_class = [
            page["OrdersView"].as_view(),
            page["OrdersByMethod"].as_view(),
            page["urlpatterns"][0].callback,
        ]
        by_function = [page[f"place_order{way}"] for way in ("", "_patiently", "_by_product")]

        for view in [*by_class, *by_function]:
            first, second = post(view, form), post(view, form)

            assert (first.status_code, second.status_code) == (201, 201)
            assert first.content == second.content
            assert second["Idempotent-Replayed"] == "true"
        assert post(page["place_order"], form, key=None).status_code == 400
        assert post(page["place_order_leniently"], form, key=None).status_code == 201
        assert Order.objects.count() == 1 + len(by_class) + len(by_function) + 1


@on_databases
def test_options_do_what_their_page_says() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        product = page["product"].pk

        stamped = [
            post(page["place_order_stamped"], {"product": product, "sent_at": at})
            for at in ("9:00", "9:01")
        ]
        streams = [post(page["export_order"]) for _ in range(2)]
        seats = [post(page["reserve_seat"]) for _ in range(2)]
        tenants = [
            post(page["place_order_for_tenant"], {"product": product}, headers={"X-Tenant": tenant})
            for tenant in ("a", "b", "a")
        ]
        failed = [
            post_failing(page["pay_by_bank"], {"product": 0}),
            post(page["pay_by_bank"], {"product": 0}),
        ]

        assert [is_replay(response) for response in stamped] == [False, True]
        assert streams[1].content == b"".join(streams[0].streaming_content)
        assert [is_replay(response) for response in seats] == [False, True]
        assert [is_replay(response) for response in tenants] == [False, False, True]
        assert problem_of(failed[1]) == "outcome-unknown"


def is_replay(response: HttpResponse) -> bool:
    return response.headers.get("Idempotent-Replayed") == "true"


def problem_of(response: HttpResponse) -> str:
    return json.loads(response.content)["type"].removeprefix(TYPE)


def post_failing(view: Any, data: Any) -> None:
    with pytest.raises(Product.DoesNotExist):
        post(view, data)


@on_databases
def test_a_class_may_be_used_with_atomic_requests() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        views = [page["OrdersView"].as_view(), page["urlpatterns"][0].callback]

        marks = [getattr(view, "_non_atomic_requests", set()) for view in views]

        assert all(alias in mark for mark in marks for alias in connections)


@on_databases
def test_an_anonymous_key_is_long() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        view, form = page["place_order"], {"product": page["product"].pk}

        short, long = post(view, form, key="x" * 15), post(view, form, key="x" * 16)

        assert (short.status_code, long.status_code) == (400, 201)


@on_databases
def test_a_view_uses_the_store_of_its_name() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        (stores,) = [
            b
            for b in blocks(ROOT / "docs/howto/protect-a-view.md")
            if "billing" in b.text and is_settings(b)
        ]
        names: dict[str, Any] = {}
        exec(stores.text, names)  # noqa: S102 - It is ours.

        with override_settings(IDEMPOTENCY_STORES=names["IDEMPOTENCY_STORES"]):
            post(page["bill"], {"product": page["product"].pk})

        assert IdempotencyRecord.objects.using("other").count() == 1
        assert IdempotencyRecord.objects.count() == 0


@on_databases
def test_outer_code_tells_a_replay() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        view, form = page["place_order"], {"product": page["product"].pk}
        counting = page["CountReplays"](view)

        for _ in range(3):
            post(counting, form)

        assert page["CountReplays"].replays == 2


@on_databases
def test_an_asynchronous_view_is_as_its_page_says() -> None:
    with examples("docs/howto/protect-a-view.md") as page:
        form = {"product": page["product"].pk}

        answers = [post(async_to_sync(page["place_order_async"]), form) for _ in range(2)]

        assert answers[0].content == answers[1].content
        assert [is_replay(answer) for answer in answers] == [False, True]


@on_databases
def test_functions_are_as_their_page_says() -> None:
    with examples("docs/howto/run-a-function-once.md") as page:
        message = {"id": "evt-9", "provider": "bank", "order": page["order"].pk, "amount": 1}
        page["receive_checked_payment"](message)
        with pytest.raises(KeyReused):
            page["receive_checked_payment"](message | {"amount": 2})
        assert page["receive_refund"](message) == page["receive_refund"](message)

        page["bank"].charge = failing(page["bank"].charge)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                page["charge"](message)

        assert len(page["bank"].charges) == 2
        assert len(set(page["bank"].charges)) == 1


def failing(call: Any) -> Any:
    def fail(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)
        raise ConnectionError

    return fail


@on_databases
def test_a_twins_message_goes_back_to_the_queue() -> None:
    with examples("docs/howto/run-a-function-once.md") as page:
        calls: list[Any] = []
        queue = SimpleNamespace(
            acknowledge=calls.append,
            return_later=lambda message, seconds: calls.append(seconds),
        )

        def running(message: Any) -> None:
            raise KeyInProgress(retry_after=3)

        page["consume"]({"id": "1", "order": page["order"].pk, "amount": 1}, queue)
        page["receive_payment"] = running
        page["consume"]({"id": "1"}, queue)

        assert calls == [{"id": "1", "order": page["order"].pk, "amount": 1}, 3]


@on_databases
@pytest.mark.usefixtures("empty_redis")
def test_records_in_redis_are_as_their_page_says() -> None:
    with examples("docs/howto/keep-records-in-redis.md") as page:
        assert page["order"].payments.count() == 1
        page["run_once"](page["pay"], scope="shop", operation="pay", key="order-1", store="redis")
        assert page["order"].payments.count() == 1

        first, second = post(page["charge"]), post(page["charge"])

        assert first.content == second.content
        assert len(page["bank"].charges) == 1
        assert len(redis_records()) == 2


@on_databases
def test_inserts_are_as_their_page_says() -> None:
    with examples("docs/howto/insert-once.md") as page:
        told: list[Any] = []

        for _ in range(2):
            page["announce"]("D-9", "Jena", told.append)

        assert [delivery.number for delivery in told] == ["D-9"]


@on_databases
def test_changes_are_kept_as_their_page_says() -> None:
    with examples("docs/howto/lose-no-change.md") as page:
        assert page["count_view"]("Mine") == 1

        sketch = page["Sketch"].objects.create()
        sketch.save()
        assert sketch.revision == 2


@on_databases
def test_a_form_is_saved_as_its_page_says() -> None:
    with examples("docs/howto/save-a-form.md") as page:
        recipe = page["Recipe"].objects.create(title="Soup", minutes=30)
        sent = {bound.name: bound.value() for bound in page["RecipeForm"](instance=recipe)}
        with override_settings(ROOT_URLCONF=tuple(page["urlpatterns"])):
            answer = Client().post(f"/recipes/{recipe.pk}/", sent | {"minutes": 40})

        recipe.refresh_from_db()
        assert (answer.status_code, recipe.minutes) == (302, 40)
        assert "minutes" in page["QuickForm"].base_fields


@on_databases
def test_the_admin_is_as_its_page_says() -> None:
    with examples("docs/howto/use-in-the-admin.md") as page:
        booking = page["Booking"].objects.create(guest="Ada", nights=31)
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("boss"))
        with override_settings(ROOT_URLCONF=(path("admin/", admin.site.urls),)):
            address = f"/admin/tests/booking/{booking.pk}"
            shown = client.get(f"{address}/change/").text
            asked = client.get(f"{address}/transition/confirm/").text
            seen = re.findall(r'name="seen" value="([^"]+)"', asked)[0]
            client.post(f"{address}/transition/confirm/", {"seen": seen})
            told = client.get(f"{address}/change/").text

        assert "Confirm the booking" in shown
        assert "/transition/expire/" not in shown
        assert "We have no room for that long." in told


@on_databases
def test_conditional_requests_are_answered_as_their_page_says() -> None:
    with examples("docs/howto/conditional-requests.md") as page:
        shown = blocks(ROOT / "docs/howto/conditional-requests.md")
        curls = [step for block in shown for step in console(block)]
        with override_settings(ROOT_URLCONF=tuple(page["urlpatterns"])):
            for step in curls:
                response = Client().generic(**request_of(step.words))
                compare(step.output, response.status_code, dict(response.items()), response.text)
            current = {"If-Match": '"essay-5-2"'}
            deleted = Client().delete("/essays/5/", headers=current)
        essay = page["Essay"].objects.create(title="Tea")
        lenient = post(partial(page["rename_leniently"], essay_id=essay.pk), {"title": "Mate"})
        both = [
            post(
                partial(page["rename"], essay_id=essay.pk),
                {"title": "Rooibos"},
                headers={"If-Match": f'"essay-{essay.pk}-2"'},
            )
            for _ in range(2)
        ]

        assert len(curls) == 4
        assert (deleted.status_code, lenient.status_code) == (204, 204)
        assert [is_replay(response) for response in both] == [False, True]
        assert [response.status_code for response in both] == [200, 200]


@on_databases
def test_rows_are_locked_as_their_page_says() -> None:
    with examples("docs/howto/lock-rows.md") as page:
        with pytest.raises(ValueError, match="not enough"):
            page["move"]("B", "A", 100)

        page["restock"](["A", "B"])

        assert [shelf.stock for shelf in page["Shelf"].objects.order_by("name")] == [4, 3]


@on_databases
def test_rows_are_fenced_as_their_page_says() -> None:
    with examples("docs/howto/fence-a-row.md") as page:
        counter = page["Counter"].objects.get(series="2026")
        fence = counter.fence

        assert page["next_number"]("2026") == 11
        counter.refresh_from_db()
        assert counter.fence > fence > 0


@on_databases
def test_states_are_moved_as_their_page_says() -> None:
    path = "docs/howto/move-a-state.md"
    with examples(path) as page:
        sent: list[Any] = []

        async def send(lines: int) -> None:
            sent.append(lines)

        upload = page["Upload"].objects.create()
        upload.run(lambda: 7)
        outcomes = [async_to_sync(upload.tell)(send) for _ in range(2)]
        shipment = page["Shipment"].objects.create()
        for _ in range(2):
            page["stamp"](shipment.pk)
        own, example = [b.text for b in blocks(ROOT / path) if b.text.startswith("stateDiagram")]

        assert [outcome.repeated for outcome in outcomes] == [False, True]
        assert sent == [7]
        assert (len(page["bank"].charges), len(mail.outbox)) == (1, 1)
        assert transitions.log_of(shipment)[0].record_id == IdempotencyRecord.objects.get().pk
        assert transitions.state_chart(page["Order"]) == own
        assert transitions.state_chart(Order) == example
        with pytest.raises(AttributeError):
            page["order"].status = "open"


@on_databases
def test_an_unknown_outcome_is_freed_as_its_page_says() -> None:
    def fail() -> None:
        raise ConnectionError

    def attempt(work: Any) -> Any:
        return idempotency.run_once(
            work, scope="s", operation="o", key="k", on_error="block", mode="lease"
        )

    with examples("docs/howto/operate.md") as page:
        with pytest.raises(ConnectionError):
            attempt(fail)
        with pytest.raises(exceptions.OutcomeUnknown):
            attempt(lambda: 1)
        assert page["count_by_state"]() == {"unknown": 1}
        assert page["count_abandoned"]() == 0

        assert page["free"](IdempotencyRecord.objects.get()) == 1

        assert attempt(lambda: 1).result == 1


@on_databases
def test_tests_pass_as_their_page_says() -> None:
    with examples("docs/howto/test-your-code.md") as page:
        found = [call for key, call in page.items() if key.startswith("test_")]

        assert len(found) == 4
        for test in found:
            # Elsewhere twins wait for each other, or say more: trying all orders takes too long.
            if connection.vendor == "postgresql" or "two_calls" not in test.__name__:
                test()


# Links


@each_page
def test_all_links_lead_somewhere(page: Path) -> None:
    without_code = FENCE.sub("", page.read_text())
    for link in LINK.findall(without_code):
        address, _, anchor = link.partition("#")
        if "://" in address:
            continue
        target = (page.parent / address).resolve() if address else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@cache
def anchors(page: Path) -> set[str]:
    text = page.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)
    }
    return headings | set(LABEL.findall(text))


# Completeness


def reference(page: str) -> str:
    return (ROOT / "docs" / "reference" / f"{page}.md").read_text()


def rows(text: str, *, columns: int) -> list[list[str]]:
    """Give the rows of all tables with so many columns, without their backticks."""
    lines = re.findall(r"^\|(.+)\|$", text, re.M)
    split = [[cell.strip().replace("`", "") for cell in line.split("|")] for line in lines]
    return [cells for cells in split if len(cells) == columns]


def test_the_reference_has_all_settings_with_their_defaults() -> None:
    text = reference("settings")
    shown = dict(re.findall(r"^```\{confval\} IDEMPOTENCY_(\w+)\n.*\n:default: `(.+)`", text, re.M))
    wanted = {name: value for name, value in vars(OurSettings).items() if name.isupper()}

    assert shown.keys() == wanted.keys()
    assert {name: ast.literal_eval(value) for name, value in shown.items()} == wanted
    for setting, defaults in (("STORES", STORE), ("LOCKS", LOCK), ("STATISTICS", STATISTICS)):
        _, _, about = text.partition(f"{{confval}} IDEMPOTENCY_{setting}\n")
        members = {cells[0]: cells[1] for cells in rows(about.split("{confval}")[0], columns=3)}
        assert {name: ast.literal_eval(members[name]) for name in defaults} == defaults


def test_the_reference_has_all_exceptions() -> None:
    named = re.findall(r"^```\{py:exception\} idempotency\.(\w+)", reference("exceptions"), re.M)

    assert sorted(named) == sorted(exceptions.__all__)


def test_the_reference_has_all_checks() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "idempotency").rglob("*.py"))
    ids = set(re.findall(r'"(?:idempotency\.)?([EW]\d{3})"', sources))

    assert [cells[0] for cells in rows(reference("checks"), columns=3)[1:]][1:] == [
        f"idempotency.{id}" for id in sorted(ids)
    ]


def test_the_reference_has_all_public_names() -> None:
    named = set(OBJECT.findall(reference("api") + reference("exceptions")))

    missing = {name for name in idempotency.__all__ if f"idempotency.{name}" not in named}
    assert not missing
    for dotted in named:
        import_name(dotted)


@pytest.mark.parametrize(("dotted", "written"), SIGNATURE.findall(reference("api")))
def test_the_reference_has_the_signature_of(dotted: str, written: str) -> None:
    real = inspect.signature(import_name(dotted)).parameters.values()
    shown = inspect.signature(eval(f"lambda {written[1:-1]}: 0")).parameters.values()  # noqa: S307

    assert [(p.name, p.default, p.kind) for p in shown] == [
        (p.name, p.default, p.kind)
        for p in real
        if p.name != "self" and (p.name, p.kind) != ("view", p.POSITIONAL_ONLY)
    ] or dotted == "idempotency.idempotent_view"


def test_the_reference_has_all_options_of_the_view() -> None:
    shown = dict(SIGNATURE.findall(reference("api")))["idempotency.idempotent_view"]
    written = inspect.signature(eval(f"lambda {shown[1:-1]}: 0")).parameters  # noqa: S307

    source = inspect.getsource(import_string("idempotency.decorators"))
    overloads = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "idempotent_view"
    ]
    options = {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(
            overloads[1].args.kwonlyargs, overloads[1].args.kw_defaults, strict=True
        )
        if default is not None
    }
    assert {name: parameter.default for name, parameter in written.items()} == options
    table = {cells[0] for cells in rows(reference("api"), columns=2)}
    assert options.keys() <= table


def import_name(dotted: str) -> Any:
    try:
        return import_string(dotted)
    except ImportError:
        owner, _, attribute = dotted.rpartition(".")
        return getattr(import_string(owner), attribute)


def test_the_reference_has_all_problems() -> None:
    said = {None: "\N{EN DASH}", True: "true", False: "false"}
    found = [cells for cells in rows(reference("http"), columns=5) if cells[1].isdigit()]

    assert sorted((type, status, same, error) for type, status, _, same, error in found) == sorted(
        (problem.type, str(problem.status), said[problem.same_key], error.__name__)
        for error, problem in PROBLEMS.items()
    )


def test_the_pages_name_the_statuses_that_free_the_key() -> None:
    for page in ("reference/http.md", "explanation/protocol.md"):
        (row,) = re.findall(r"401, 403[\d, ]* or \d+", (ROOT / "docs" / page).read_text())
        assert {int(status) for status in re.findall(r"\d+", row)} == FREEING


def test_examples_of_problems_are_real() -> None:
    (shown,) = [
        json.loads(b.text) for b in blocks(ROOT / "docs/reference/http.md") if b.language == "json"
    ]

    assert shown == json.loads(problem_response(KeyInProgress(retry_after=1)).content)


@each_page
def test_names_in_code_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    known = known_names()
    for code in re.findall(r"(?<!`)`([A-Za-z_][\w.]*(?:\(\))?)`(?!`)", text):
        for kind, pattern in {
            "setting": r"IDEMPOTENCY_[A-Z_]+",
            "class": r"(?:[A-Z][a-z]+){2,}",
        }.items():
            if re.fullmatch(pattern, code):
                assert code in known, f"{kind} {code}"


def send_json(view: Any, content: Any = None, method: str = "post", **headers: str) -> Any:
    """Send JSON to *view*, with a key unless *headers* have one, and give its rendered answer."""
    headers = {"Idempotency-Key": KEY} | {k.replace("_", "-"): v for k, v in headers.items()}
    make = getattr(RequestFactory(), method)
    data = {} if content is None else {"data": content}
    request = make("/", content_type="application/json", headers=headers, **data)
    response = view(request, **({"pk": content["pk"]} if content and "pk" in content else {}))
    return response.render() if hasattr(response, "render") else response


@on_databases
def test_views_of_drf_are_as_their_page_says() -> None:
    with examples("docs/howto/use-with-drf.md") as page:
        form = {"name": "Cup", "price": 5, "stock": 1}
        create = page["ProductViewSet"].as_view({"post": "create"})
        restock = page["ProductViewSet"].as_view({"post": "restock"})
        made = send_json(create, form)
        pk = made.data["id"]
        stocked = [send_json(restock, {"pk": pk, "count": 2}) for _ in range(2)]
        quotes = page["Quotes"].as_view({"post": "create"})
        pot = {**form, "name": "Pot"}
        stamped = [send_json(quotes, {**pot, "sent_at": at}) for at in (1, 2)]
        articles = page["ArticleViewSet"].as_view({"post": "create", "patch": "partial_update"})
        article = send_json(articles, {"title": "a"})
        change = {"pk": article.data["id"], "title": "b"}
        changes = [send_json(articles, change, "patch", If_Match=article["ETag"]) for _ in range(2)]

        assert (made.status_code, send_json(create, form).content) == (201, made.content)
        assert problem_of(send_json(create, {**form, "price": 6})) == "key-reused"
        assert [one.data for one in stocked] == [{"stock": 3}] * 2
        assert [is_replay(one) for one in stamped] == [False, True]
        assert [one.status_code for one in changes] == [200, 200]
        assert [is_replay(one) for one in changes] == [False, True]
        old = {"Idempotency_Key": KEY + "2", "If_Match": article["ETag"]}
        assert send_json(articles, change, "patch", **old).status_code == 412
        assert send_json(articles, change, "patch", Idempotency_Key=KEY + "3").status_code == 428
        assert page["ping"].not_idempotent is True
        counted = [send_json(page["count_products"]) for _ in range(2)]
        assert [is_replay(one) for one in counted] == [False, True]
        photos = page["Photos"].as_view()
        assert send_photo(photos).status_code == 400
        assert [send_photo(photos, digest).status_code for digest in "aab"] == [200, 200, 422]


def send_photo(view: Any, digest: str = "") -> Any:
    headers = {"Idempotency-Key": KEY, "Content-Disposition": "attachment; filename=a.png"}
    if digest:
        headers["Content-Digest"] = digest
    request = RequestFactory().post("/", b"x" * 9, "image/png", headers=headers)
    return view(request)


@on_databases
def test_operations_of_ninja_are_as_their_page_says() -> None:
    with ExitStack() as stack:
        page = stack.enter_context(examples("docs/howto/use-with-ninja.md"))
        stack.enter_context(override_settings(ROOT_URLCONF=(path("api/", page["api"].urls),)))
        product = Product.objects.create(name="Cup", price=5, stock=10)

        def order(token: str, at: str = "orders") -> HttpResponse:
            return Client().post(
                f"/api/{at}",
                {"product": product.pk},
                content_type="application/json",
                headers={"Idempotency-Key": KEY, "Authorization": f"Bearer {token}"},
            )

        answers = [order(f"shop-{name}") for name in "aba"]

        assert [one.status_code for one in answers] == [201] * 3
        assert [is_replay(one) for one in answers] == [False, False, True]
        assert answers[2]["Location"] == answers[0]["Location"] != answers[1]["Location"]
        assert order("other").status_code == 401
        assert [is_replay(order("", "claims")) for _ in range(2)] == [False, True]


@on_databases
def test_a_transfer_keeps_its_key_as_its_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with examples("docs/howto/call-a-protected-service.md") as page:
        transfer = page["Transfer"].objects.create(amount=5)
        sent: list[Any] = []
        monkeypatch.setattr(page["client"], "post", lambda url, **how: sent.append(how["headers"]))
        for _ in range(2):
            page["send"](page["Transfer"].objects.get(pk=transfer.pk))

        assert sent == [{"Idempotency-Key": transfer.key}] * 2


@cache
def known_names() -> set[str]:
    settings_names = {f"IDEMPOTENCY_{name}" for name in vars(OurSettings) if name.isupper()}
    errors = {error.__name__ for error in PROBLEMS} | {IdempotencyError.__name__}
    others = {"IdempotencyRecord", "IdempotentManager", "IdempotencyMiddleware", "RunningClaim"}
    others |= vars(signals).keys()
    others |= {
        "VersionedModel",
        "VersionedManager",
        "VersionField",
        "FencedModel",
        "BigIntegerField",
    }
    others |= {*transitions.__all__, "TransitionNotAllowed", "ConcurrentTransitionMixin"}
    others |= {"LockLease", "FencedModel"}
    others |= {*drf.__all__, "IdempotentSchemaMixin", "AsyncIdempotentTransport"}
    others |= {"IdempotentTransport", "IdempotentAdapter"}
    others |= {"HttpError", "APIView", "CorsMiddleware", "HTTPAdapter"}
    others |= {"VersionedForm", "VersionedAdmin", "TransitionsAdmin"}
    django_names = {"FileResponse", "PermissionDenied", "ImproperlyConfigured"}
    django_names |= {
        "TransactionManagementError",
        "DatabaseStore",
        "RedisStore",
        "TransactionTestCase",
    }
    django_names |= {"ModelForm", "ModelAdmin", "ValidationError", "DatabaseError"}
    django_names |= {"TemplateResponse"}
    django_names |= {"IntegrityError", "DoesNotExist", "GZipMiddleware", "ConditionalGetMiddleware"}
    return {*settings_names, *errors, *others, *django_names, *dir(builtins), *idempotency.__all__}
