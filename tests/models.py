"""Models that only the tests need."""

from django.db import models

from idempotency.keys import uuid7
from idempotency.models import IdempotentManager, VersionedManager, VersionedModel
from idempotency.optimistic import VersionField


class Effect(models.Model):
    """An effect to be counted: two with the same name are one too many."""

    name = models.CharField(max_length=300)

    def __str__(self) -> str:
        return self.name


class Ticket(models.Model):
    """A row that is made once for each number."""

    number = models.CharField(max_length=20, unique=True)
    title = models.CharField(max_length=10, default="")
    venue = models.CharField(max_length=20, default="")
    seat = models.IntegerField(null=True)
    serial = models.IntegerField(unique=True, null=True)
    made_at = models.DateTimeField(auto_now_add=True)

    objects = IdempotentManager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["venue", "seat"], name="seat_once"),)

    def __str__(self) -> str:
        return self.number


class Parcel(models.Model):
    """A row whose primary key is handed out before it is stored."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    code = models.CharField(max_length=20, unique=True)
    ticket = models.ForeignKey(Ticket, models.CASCADE, null=True)
    weight = models.IntegerField(db_default=7)

    objects = IdempotentManager()

    def __str__(self) -> str:
        return self.code


class Account(VersionedModel):
    """A row that many change at once."""

    name = models.CharField(max_length=20, default="")
    balance = models.IntegerField(default=0)
    note = models.CharField(max_length=20, default="", db_default="")
    owner = models.ForeignKey("self", models.SET_NULL, null=True, related_name="owned")

    def __str__(self) -> str:
        return self.name


class Savings(Account):
    """A row in two tables, whose version is in the first."""

    rate = models.IntegerField(default=0)


class Place(models.Model):
    """A first table without a version."""

    town = models.CharField(max_length=20, unique=True)

    def __str__(self) -> str:
        return self.town


class Branch(Place, VersionedModel):
    """A row in two tables, whose version is in the second."""

    desks = models.IntegerField(default=0)

    objects = VersionedManager()

    class Meta:
        base_manager_name = "objects"


class NamedManager(VersionedManager["Sheet"]):
    def named(self, name: str) -> "Sheet":
        return self.get(name=name)


class Sheet(VersionedModel):
    """A row with a key that its caller chooses, and a version of another name."""

    version = None
    name = models.CharField(max_length=20, primary_key=True)
    cells = models.IntegerField(default=0)
    rev = VersionField()

    objects = NamedManager()

    def __str__(self) -> str:
        return self.name
