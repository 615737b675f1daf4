"""One round trip for each script, whatever the alias does to values and errors."""

import sys
import threading
import time

import pytest
from django_redis.pool import ConnectionFactory

from idempotency import InvalidBackend, StoreUnavailable
from idempotency.scripts import IDLE, Script, Server
from idempotency.testing.children import Child

ECHO = Script("return {KEYS[1], ARGV[1], false, 7}")
COUNT = Script("return redis.call('INCR', KEYS[1])")
FAIL = Script("return redis.call('LPUSH', KEYS[1], 1)")

pytestmark = pytest.mark.usefixtures("own_redis")


@pytest.fixture
def server():
    server = Server("own")
    yield server
    server.close()


def aliased(settings, **changes):
    """Give a server whose alias differs from "own" in *changes*."""
    ConnectionFactory._pools.clear()  # They are known by address alone.
    settings.CACHES = {**settings.CACHES, "own": {**settings.CACHES["own"], **changes}}
    return Server("own")


def test_script_gets_its_words_and_gives_bytes_and_integers(server):
    assert server.run(ECHO, ["key"], [b"\x00\xff"]) == [b"key", b"\x00\xff", None, 7]


def test_many_runs_come_back_in_their_order(server):
    assert server.run_each(COUNT, [(["a"], []), (["b"], []), (["a"], [])]) == [1, 1, 2]


def test_run_is_one_round_trip(server, own_redis):
    server.run(COUNT, ["a"], [])
    before = own_redis.tell("INFO", "commandstats")["cmdstat_evalsha"]["calls"]

    server.run(COUNT, ["a"], [])

    assert own_redis.tell("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert own_redis.tell("INFO", "commandstats")["cmdstat_eval"]["calls"] == 1


def test_script_that_the_server_has_forgotten_is_sent_again(server, own_redis):
    server.run(COUNT, ["a"], [])
    own_redis.tell("SCRIPT", "FLUSH")

    assert server.run_each(COUNT, [(["a"], []), (["a"], [])]) == [2, 3]


def test_error_of_a_script_is_told_and_leaves_the_connection_in_order(server):
    server.send("SET", "text", "x")

    with pytest.raises(StoreUnavailable) as caught:
        server.run(FAIL, ["text"], [])

    assert "WRONGTYPE" in str(caught.value.__cause__)
    assert server.send("GET", "text") == b"x"


@pytest.mark.parametrize(
    "options",
    [
        {"CONNECTION_POOL_KWARGS": {"decode_responses": True}},
        {"IGNORE_EXCEPTIONS": True},
        {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
        {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
        {"CONNECTION_POOL_CLASS": "redis.connection.BlockingConnectionPool"},
        {"CONNECTION_POOL_KWARGS": {"protocol": 2}},
        {"CONNECTION_POOL_KWARGS": {"protocol": 3}},
        {"CONNECTION_POOL_KWARGS": {"socket_timeout": None, "retry_on_timeout": True}},
    ],
    ids=lambda options: " ".join(map(str, options.values())).rpartition(".")[2],
)
def test_options_of_the_alias_change_nothing(settings, options):
    server = aliased(settings, OPTIONS=options)

    assert server.run(ECHO, ["key"], [b"\xff"]) == [b"key", b"\xff", None, 7]
    server.close()


def test_prefix_and_version_set_keys_apart(settings):
    server = aliased(settings, KEY_PREFIX="shop", VERSION=2)

    assert server.space == "shop:2"


@pytest.mark.parametrize("alias", ["nowhere", "local", "dummy", "own redis of Django"])
def test_alias_that_is_no_redis_of_django_redis_is_refused(settings, alias):
    backends = "django.core.cache.backends."
    settings.CACHES = {
        **settings.CACHES,
        "local": {"BACKEND": f"{backends}locmem.LocMemCache"},
        "dummy": {"BACKEND": f"{backends}dummy.DummyCache"},
        "own redis of Django": {"BACKEND": f"{backends}redis.RedisCache", "LOCATION": "redis://x"},
    }

    with pytest.raises(InvalidBackend, match=f"{alias}'\\] is not a cache of django-redis"):
        Server(alias).send("PING")


def test_package_that_is_missing_is_told(monkeypatch, server):
    monkeypatch.setitem(sys.modules, "django_redis", None)

    with pytest.raises(InvalidBackend, match="pip install"):
        server.send("PING")


def test_connection_that_was_killed_is_replaced_at_once(server, own_redis):
    server.send("PING")
    own_redis.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert server.run(COUNT, ["a"], []) == 1


def test_server_that_was_restarted_is_reached_again_without_help(server, own_redis):
    server.run(COUNT, ["a"], [])
    own_redis.stop()
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        server.run(COUNT, ["a"], [])
    own_redis.start()

    assert caught.value.retry_after == 1
    assert server.run(COUNT, ["a"], []) == 1


@pytest.mark.parametrize("is_connected", [True, False])
def test_server_that_hangs_costs_one_time_out(server, own_redis, is_connected):
    if is_connected:
        server.send("PING")
    with own_redis.paused():
        started_at = time.monotonic()

        with pytest.raises(StoreUnavailable):
            server.run(COUNT, ["a"], [])

        assert 0.4 < time.monotonic() - started_at < 0.9
    assert server.send("PING") == b"PONG"


def test_answer_that_came_too_late_is_not_taken_for_the_next_one(server, own_redis):
    server.send("SET", "a", "late")
    with own_redis.paused(), pytest.raises(StoreUnavailable):
        server.send("GET", "a")

    assert server.send("GET", "b") is None


def test_threads_share_a_server(server):
    def work():
        for _ in range(50):
            server.run(COUNT, ["a"], [])

    threads = [threading.Thread(target=work) for _ in range(2 * IDLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert server.run(COUNT, ["a"], []) == 100 * IDLE + 1
    assert len(server._idle) <= IDLE


def test_child_of_a_fork_does_not_speak_on_the_connections_of_its_parent(server):
    mine = server.send("CLIENT", "ID")

    reports, _ = Child(lambda report: report(server.send("CLIENT", "ID"))).join()

    assert reports != [mine]
    assert server.send("CLIENT", "ID") == mine


def test_primary_that_became_a_replica_is_asked_for_anew(server, own_redis):
    server.run(COUNT, ["a"], [])
    own_redis.tell("REPLICAOF", "127.0.0.1", "1")

    with pytest.raises(StoreUnavailable) as caught:
        server.run(COUNT, ["a"], [])
    own_redis.tell("REPLICAOF", "NO", "ONE")

    assert "read only" in str(caught.value.__cause__)
    assert server.run(COUNT, ["a"], []) == 2


def test_redis_that_is_full_refuses(server, own_redis):
    own_redis.tell("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(StoreUnavailable) as caught:
        server.run(COUNT, ["a"], [])

    assert "maxmemory" in str(caught.value.__cause__)
