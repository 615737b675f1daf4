"""The numbers shown are those of what happened, over processes that stop as they should."""

import json
import subprocess
import sys
import time
from collections import Counter

import pytest
from django.db import connection

from idempotency.models import CallLog, Statistic

pytestmark = pytest.mark.django_db(transaction=True)

STORM = """
import json, os, random, sys, threading
from collections import Counter

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
from django.db import connections
from idempotency import KeyInProgress, KeyReused, lock, run_once

told = Counter()
mutex = threading.Lock()

def one(random):
    key, reuses = f"key-{random.randrange(40)}", random.random() < 0.1
    input = "other" if reuses else "same"
    try:
        outcome = run_once(lambda: 1, scope="s", operation="storm", key=key, fingerprint=input)
    except KeyReused:
        return "reused"
    except KeyInProgress:
        return "in_progress"
    return "replayed" if outcome.replayed else "executed"

def work(seed):
    own = random.Random(seed)
    for _ in range(60):
        outcome = one(own)
        with mutex:
            told[outcome] += 1
    connections.close_all()

threads = [threading.Thread(target=work, args=[f"{sys.argv[1]}-{n}"]) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(told))
"""


def begin(program, *arguments):
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def counted():
    rows = Statistic.objects.filter(kind="call", name="storm")
    found = Counter()
    for outcome, count in rows.values_list("outcome", "count"):
        found[outcome] += count
    return found


def test_numbers_equal_what_a_storm_did_to_the_last_duplicate():
    processes = [begin(STORM, str(number)) for number in range(3)]
    told = Counter()
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        told.update(json.loads(output))

    assert counted() == told
    assert told["executed"] == 40
    assert sum(told.values()) == 3 * 3 * 60
    duplicates = sum(told.values()) - told["executed"]
    assert CallLog.objects.count() == duplicates


KILLED = """
import os, signal
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
from idempotency import run_once
run_once(lambda: 1, scope="s", operation="storm", key="key")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_loses_seconds_of_statistics_and_no_effect():
    for program, ending in ((KILLED, -9), (STORM, 0)):
        process = begin(program, "0")
        process.communicate(timeout=100)
        assert process.returncode == ending

    assert counted()["executed"] == 40


BUSY = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
from idempotency import run_once
run_once(lambda: 1, scope="s", operation="storm", key="key")
print("done", flush=True)
sys.stdin.read()
"""


def test_numbers_are_written_while_the_process_goes_on():
    command = [sys.executable, "-W", "error", "-c", BUSY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "done\n"
    deadline = time.monotonic() + 30
    while not counted() and time.monotonic() < deadline:
        time.sleep(0.1)
    connection.close()
    process.communicate("", timeout=30)

    assert counted() == {"executed": 1}
    assert process.returncode == 0
