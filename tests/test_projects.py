"""The whole projects of the documentation: set up, served and asked as their pages say."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import wait_until
from tests.services import free_port
from tests.test_docs import ROOT, Step, blocks, compare, is_curl, steps

PROJECTS = ROOT / "docs" / "projects"
PAGES = {
    "drf": "use-with-drf",
    "ninja": "use-with-ninja",
    "async": "use-with-async-views",
    "middleware": "protect-every-view",
}
HERE = "http://127.0.0.1:8000"
FORM = "application/x-www-form-urlencoded"
DURABLE = '"timeout": 20'
"""What the settings say; a test need not wait for the disk."""


@pytest.mark.parametrize("name", PAGES)
def test_project_runs_as_its_page_says(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "project"
    shutil.copytree(PROJECTS, folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
    hasten(folder / "shop" / "settings.py")
    due = steps_of(ROOT / "docs" / "howto" / f"{PAGES[name]}.md")
    requests = [step for step in due if is_curl(step)]
    install, *commands, serve = [step for step in due if not is_curl(step)]

    assert install.words[:4] == ["python", "-m", "pip", "install"]
    for step in commands:
        run(folder, step)
    with serving(folder, serve) as port:
        for step in requests:
            response = send(step, port)
            compare(step.output, response.status_code, titled(response), response.text)

    assert [step.output.count("Idempotent-Replayed") for step in requests] == [0, 1, 0]


def hasten(settings: Path) -> None:
    text = settings.read_text()
    assert DURABLE in text
    init = f'{DURABLE}, "init_command": "PRAGMA synchronous=OFF"'
    hasher = 'SETTINGS["PASSWORD_HASHERS"] = ["django.contrib.auth.hashers.MD5PasswordHasher"]'
    settings.write_text(f"{text.replace(DURABLE, init)}\n{hasher}\n")


def steps_of(page: Path) -> list[Step]:
    """Give the commands under the last heading of *page*."""
    last = page.read_text()[: page.read_text().index("\n## Try a whole project")].count("\n")
    found = [block for block in blocks(page) if block.language == "console" and block.line > last]
    return [step for block in found for step in steps(block)]


def environment(step: Step) -> tuple[list[str], dict[str, str]]:
    """Give the words of a command, and the variables: of this machine, and those before it."""
    words = [*step.words]
    own = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        own[name] = value
    assert words.pop(0) == "python"
    kept = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return [sys.executable, *words], {**kept, "PYTHONPATH": str(ROOT), **own}


def run(folder: Path, step: Step) -> None:
    words, variables = environment(step)
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def serving(folder: Path, step: Step) -> Iterator[int]:
    """Start the server that *step* starts, at a port of its own, and stop it in the end."""
    port = free_port()
    words, variables = environment(step)
    words += ["--noreload", f"127.0.0.1:{port}"] if words[-1] == "runserver" else [f"--port={port}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        wait_until(lambda: is_open(port) or server.poll() is not None)
        assert server.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        server.terminate()
        server.wait(30)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
    except OSError:
        return False
    return True


def send(step: Step, port: int) -> httpx.Response:
    """Send what a curl command would send."""
    assert step.words[:2] == ["curl", "-i"]
    assert step.words[2].startswith(HERE)
    given = list(zip(step.words[3::2], step.words[4::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
    options = {option: value for option, value in given if option != "-H"}
    if "-u" in options:
        coded = base64.b64encode(options["-u"].encode()).decode()
        headers["Authorization"] = f"Basic {coded}"
    return httpx.request(
        options.get("-X", "POST"),
        step.words[2].replace(HERE, f"http://127.0.0.1:{port}"),
        content=options.get("-d", ""),
        headers={"Content-Type": FORM, **headers},
        timeout=30,
    )


def titled(response: httpx.Response) -> dict[str, str]:
    return {name.title(): value for name, value in response.headers.items()}
