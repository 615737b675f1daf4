"""What one would write by hand: the same promise in one transaction, and nothing else."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.http import HttpRequest, HttpResponse

from .models import Record
from .views import bare

INSERT = (
    "INSERT INTO benchmarks_record (id, fingerprint, status, body) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (id) DO NOTHING"
)
INSERT_IGNORE = (
    "INSERT IGNORE INTO benchmarks_record (id, fingerprint, status, body) VALUES (%s, %s, %s, %s)"
)


def claim_and_update(request: HttpRequest) -> HttpResponse:
    """Insert the record, run the view, write its answer into the record."""
    record, fingerprint = identity(request)
    with transaction.atomic(), connection.cursor() as cursor:
        if not insert(cursor, record, fingerprint, None, None):
            return answer(look(cursor, record), fingerprint)
        response = bare(request)
        cursor.execute(
            "UPDATE benchmarks_record SET status = %s, body = %s WHERE id = %s",
            [response.status_code, response.content, record],
        )
        return response


def look_claim_and_update(request: HttpRequest) -> HttpResponse:
    """Look for an answer in autocommit first."""
    record, fingerprint = identity(request)
    with connection.cursor() as cursor:
        found = look(cursor, record)
    return answer(found, fingerprint) if found else claim_and_update(request)


def one_write(request: HttpRequest) -> HttpResponse:
    """Try a lock and look in one statement, run the view, insert the record with its answer."""
    record, fingerprint = identity(request)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(%s), fingerprint, status, body"
            " FROM (SELECT) AS always LEFT JOIN benchmarks_record ON id = %s",
            [int.from_bytes(record.bytes[8:], signed=True), record],
        )
        held, *found = cursor.fetchone()
        if found[0] is not None:
            return answer(found, fingerprint)
        if not held:
            return HttpResponse(status=409)
        response = bare(request)
        if not insert(cursor, record, fingerprint, response.status_code, response.content):
            transaction.set_rollback(True)
            return HttpResponse(status=409)
        return response


def identity(request: HttpRequest) -> tuple[Any, bytes]:
    """Give the record's id, and what tells another request with the same key."""
    key = hashlib.sha256(request.headers["Idempotency-Key"].encode()).digest()
    fingerprint = hashlib.sha256(request.path.encode() + b"\0" + request.body).digest()
    record = uuid.UUID(bytes=key[:16])
    return Record._meta.pk.get_db_prep_value(record, connection), fingerprint


def insert(
    cursor: CursorWrapper, record: Any, fingerprint: bytes, status: int | None, body: bytes | None
) -> bool:
    """Insert the record unless it is there; tell whether it was inserted."""
    cursor.execute(
        INSERT_IGNORE if connection.vendor == "mysql" else INSERT,
        [record, fingerprint, status, body],
    )
    return cursor.rowcount == 1


def look(cursor: CursorWrapper, record: Any) -> Any:
    """Give what the record keeps, or None."""
    cursor.execute(
        "SELECT fingerprint, status, body FROM benchmarks_record WHERE id = %s", [record]
    )
    return cursor.fetchone()


def answer(found: Any, fingerprint: bytes) -> HttpResponse:
    """Give the kept answer again."""
    stored, status, body = found
    if bytes(stored) != fingerprint:
        return HttpResponse(status=422)
    return HttpResponse(bytes(body), status=status, content_type="application/json")
