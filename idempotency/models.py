"""The models of this app, and the base of those that use it."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fencing import FencedModel
from .fields import RecordIdField
from .inserts import IdempotentManager
from .keys import MAX_LENGTH
from .optimistic import VersionedManager, VersionedModel

__all__ = [
    "CallLog",
    "FencedModel",
    "IdempotencyRecord",
    "IdempotentManager",
    "LockLease",
    "Statistic",
    "TransitionLog",
    "VersionedManager",
    "VersionedModel",
]


class LockLease(models.Model):
    """
    A lock that the database keeps: who has it, until when.

    A released one stays for a day with its token, so that the next holder gets a greater one. It
    has no second index: on PostgreSQL each change then stays within the row's page.
    """

    id = RecordIdField(_("ID"), primary_key=True, editable=False)
    name = models.CharField(_("name"), max_length=255)
    owner = models.CharField(_("owner"), max_length=128)
    token = models.BigIntegerField(_("fencing token"))
    taken_at = models.DateTimeField(_("taken at"))
    ends_at = models.DateTimeField(_("lease ends at"))

    class Meta:
        verbose_name = _("lock")
        verbose_name_plural = _("locks")
        permissions = (("release_lock", _("Can release a lock of another holder")),)

    def __str__(self) -> str:
        return self.name


class IdempotencyRecord(models.Model):
    """
    What is remembered about one key: who runs it, or what came of it.

    Only `purge_after` and what never changes have an index, and a completion seldom moves the
    former: on PostgreSQL an update of an indexed column, or of one in an index's condition, could
    not stay within the row's page. An unknown outcome is to be purged `NEVER`, and so found there.
    """

    class State(models.TextChoices):
        IN_PROGRESS = "in_progress", _("in progress")  # Claimed; its token may complete it.
        COMPLETED = "completed", _("completed")  # Ran once; replayed until `expires_at`.
        RELEASED = "released", _("released")  # Ran without lasting effect; free to be claimed.
        UNKNOWN = "unknown", _("unknown")  # Nobody knows whether it took effect; runs nothing.

    id = RecordIdField(_("ID"), primary_key=True, editable=False)
    state = models.CharField(_("state"), max_length=16, choices=State)
    token = models.BigIntegerField(_("fencing token"))
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    scope = models.CharField(_("scope"), max_length=MAX_LENGTH)
    operation = models.CharField(_("operation"), max_length=MAX_LENGTH)
    key = models.CharField(_("key"), max_length=MAX_LENGTH)
    fingerprint = models.CharField(_("fingerprint"), max_length=80, blank=True)
    # Digests of its input by their paths, to tell where another one differs.
    outline = models.CharField(_("outline"), max_length=1_000, blank=True, db_default="")
    # The span in which it ran, as W3C Trace Context writes it.
    origin = models.CharField(_("origin"), max_length=64, blank=True, db_default="")
    status = models.PositiveSmallIntegerField(_("status"), null=True)
    headers = models.JSONField(_("headers"), null=True)
    body = models.BinaryField(_("body"), null=True)
    created_at = models.DateTimeField(_("created at"))
    ends_at = models.DateTimeField(_("lease ends at"), null=True)
    completed_at = models.DateTimeField(_("completed at"), null=True)
    expires_at = models.DateTimeField(_("expires at"), null=True)
    purge_after = models.DateTimeField(_("purged after"), db_index=True)

    class Meta:
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        indexes = (models.Index(fields=["key"], name="idempotency_record_key"),)
        permissions = (
            ("view_answer", _("Can view the stored answer of a record")),
            ("release_record", _("Can release the claim of a record")),
            ("resolve_record", _("Can resolve an unknown outcome")),
            ("expire_record", _("Can let a record expire now")),
        )

    def __str__(self) -> str:
        return f"{self.operation} {self.key}"


class CallLog(models.Model):
    """
    A call that was not the first and only one with its key, or what a person decided about it.

    Written in batches some seconds later, and at most so many for each record: it explains, and
    proves nothing.
    """

    record_id = RecordIdField(_("idempotency record"))
    scope = models.CharField(_("scope"), max_length=MAX_LENGTH)
    operation = models.CharField(_("operation"), max_length=MAX_LENGTH)
    outcome = models.CharField(_("outcome"), max_length=16)  # One of `signals.CallOutcome`.
    status = models.PositiveSmallIntegerField(_("status"), null=True)
    seconds = models.FloatField(_("seconds"), default=0)
    request_id = models.CharField(_("request"), max_length=64, blank=True)
    worker = models.CharField(_("worker"), max_length=100, blank=True)  # Host and process.
    differences = models.JSONField(_("differences"), null=True)  # JSON pointers, no values.
    by = models.CharField(_("by"), max_length=255, blank=True)  # Such as "user:42".
    note = models.TextField(_("note"), blank=True)
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("call")
        verbose_name_plural = _("calls")
        ordering = ("-id",)
        indexes = (
            models.Index(fields=["record_id", "at"], name="idempotency_calls_of"),
            models.Index(fields=["at"], name="idempotency_calls_at"),
        )

    def __str__(self) -> str:
        return f"{self.operation}: {self.outcome}"


class Statistic(models.Model):
    """
    How often something ended in one way, in one stretch of time; counted in memory, and added.

    The primary key is a digest of what is counted, so that all processes add to one row.
    """

    class Kind(models.TextChoices):
        CALL = "call", _("calls")
        LOCK = "lock", _("locks")
        ROW = "row", _("rows")

    id = RecordIdField(_("ID"), primary_key=True, editable=False)
    starts_at = models.DateTimeField(_("from"), db_index=True)
    length = models.PositiveIntegerField(_("length"))  # Seconds: a minute, an hour, a day.
    kind = models.CharField(_("kind"), max_length=4, choices=Kind)
    name = models.CharField(_("name"), max_length=MAX_LENGTH)  # Of an operation, or a template.
    outcome = models.CharField(_("outcome"), max_length=16)
    count = models.BigIntegerField(_("count"))
    seconds = models.FloatField(_("seconds"))  # The sum of what they took.
    longest = models.FloatField(_("longest"))

    class Meta:
        verbose_name = _("statistic")
        verbose_name_plural = _("locks and duplicates")  # The page that shows them.

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}: {self.count}"


class TransitionLog(models.Model):
    """
    One transition of one row, written in the transaction that made it: never without it.

    States and keys are kept as text, so that rows with any kind of them share one table.
    """

    model = models.CharField(_("model"), max_length=201)  # Such as "orders.order".
    object_id = models.CharField(_("object"), max_length=255)
    field = models.CharField(_("field"), max_length=100)
    transition = models.CharField(_("transition"), max_length=100)
    source = models.CharField(_("from"), max_length=255, blank=True)
    target = models.CharField(_("to"), max_length=255, blank=True)
    by = models.CharField(_("by"), max_length=255, blank=True)  # Such as "user:42".
    note = models.TextField(_("note"), blank=True)
    record_id = RecordIdField(_("idempotency record"), null=True)
    created_at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("transition")
        verbose_name_plural = _("transitions")
        ordering = ("-id",)
        indexes = (
            models.Index(fields=["object_id", "model"], name="idempotency_transition_of"),
            models.Index(fields=["record_id"], name="idempotency_transition_in"),
        )

    def __str__(self) -> str:
        return f"{self.model} {self.object_id}: {self.source} → {self.target}"
