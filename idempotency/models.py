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
    "FencedModel",
    "IdempotencyRecord",
    "IdempotentManager",
    "LockLease",
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

    def __str__(self) -> str:
        return self.name


class IdempotencyRecord(models.Model):
    """
    What is remembered about one key: who runs it, or what came of it.

    Only `purge_after` has an index, and a completion seldom moves it: on PostgreSQL an update of
    an indexed column, or of one in an index's condition, could not stay within the row's page.
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

    def __str__(self) -> str:
        return f"{self.operation} {self.key}"


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
        indexes = (models.Index(fields=["object_id", "model"], name="idempotency_transition_of"),)

    def __str__(self) -> str:
        return f"{self.model} {self.object_id}: {self.source} → {self.target}"
