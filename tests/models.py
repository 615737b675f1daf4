"""Models that only the tests need."""

from django.core.exceptions import ValidationError
from django.db import models
from django_fsm import GET_STATE, RETURN_VALUE, FSMField, FSMIntegerField, FSMKeyField

from idempotency.keys import uuid7
from idempotency.models import FencedModel, IdempotentManager, VersionedManager, VersionedModel
from idempotency.optimistic import VersionField
from idempotency.transitions import TransitionsMixin, transition


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


class Meter(FencedModel):
    """A row that is written under a lock."""

    name = models.CharField(max_length=20, default="")
    reading = models.IntegerField(default=0)
    place = models.ForeignKey(Place, models.SET_NULL, null=True)

    def __str__(self) -> str:
        return self.name


class SmartMeter(Meter):
    """A row in two tables, whose fence is in the first."""

    firmware = models.IntegerField(default=0)


class TownMeter(Place, FencedModel):
    """A row in two tables, whose fence is in the second."""

    reading = models.IntegerField(default=0)


class VersionedMeter(VersionedModel, FencedModel):
    """A row with a version and a fence."""

    reading = models.IntegerField(default=0)


class FencedSheet(FencedModel, VersionedModel):
    """The same, with its bases the other way round."""

    reading = models.IntegerField(default=0)

    class Meta(VersionedModel.Meta):
        abstract = False


class Valve(TransitionsMixin, FencedModel):
    """A row with a state and a fence."""

    reading = models.IntegerField(default=0)
    state = FSMField(default="open", protected=True)

    def __str__(self) -> str:
        return self.state

    @transition(state, source="open", target="shut")
    def shut(self):
        self.reading += 1


class Tank(models.Model):
    """A row whose fence has another name, and is empty at first."""

    level = models.IntegerField(default=0)
    seen = models.BigIntegerField(null=True)
    small = models.IntegerField(default=0)

    def __str__(self) -> str:
        return str(self.level)


class Refused(Exception):
    """The body of a transition failed."""


def is_sealed(letter: "Letter") -> bool:
    return letter.sealed


class Steps(TransitionsMixin, models.Model):
    """A life with every kind of transition."""

    class State(models.TextChoices):
        NEW = "new", "new"
        SENT = "sent", "sent"
        READ = "read", "read"
        LOST = "lost", "lost"
        KEPT = "kept", "kept"

    name = models.CharField(max_length=20, default="")
    sealed = models.BooleanField(default=True)
    marks = models.JSONField(default=list, blank=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


class Letter(Steps):
    """A row without a version."""

    state = FSMField(default=Steps.State.NEW, choices=Steps.State, protected=True)
    weight = FSMIntegerField(default=0, protected=True)
    twin = models.ForeignKey("self", models.SET_NULL, null=True, blank=True)
    copy = models.FileField(null=True, blank=True)

    @transition(state, source="new", target="sent", conditions=[is_sealed])
    def send(self, do=lambda letter: None):
        Effect.objects.create(name=f"send {self.pk}")
        return do(self)

    @transition("state", source=["new", "sent"], target="read")
    def read(self, do=lambda letter: None):
        return do(self)

    @transition(state, source="read", target="read")
    def reread(self):
        Effect.objects.create(name=f"reread {self.pk}")

    @transition(state, source=["new", "read"], target="read")
    def again(self):
        Effect.objects.create(name=f"again {self.pk}")

    @transition(state, source="*", target="lost")
    def lose(self):
        Effect.objects.create(name=f"lose {self.pk}")

    @transition(state, source="+", target="kept")
    def keep(self, note, by=None):
        return note, by

    @transition(state, source="new")
    def weigh(self, do=lambda letter: None):
        return do(self)

    @transition(state, source="new", target="sent", on_error="lost")
    def risk(self, do):
        Effect.objects.create(name=f"risk {self.pk}")
        return do(self)

    @transition(state, source="new", target=RETURN_VALUE("read", "kept"))
    def settle(self, outcome):
        return outcome

    @transition(
        state, source="new", target=GET_STATE(lambda letter, to: to, states=["read", "kept"])
    )
    def sort(self, to):
        self.name = to

    @transition(state, source="sent", target="kept")
    @transition(state, source="new", target="lost")
    def file(self):
        return self.state

    @transition(weight, source=0, target=1, permission="tests.change_letter")
    def load(self, do=lambda letter: None):
        return do(self)

    @transition(state, source="*", target=RETURN_VALUE("read", "kept"))
    def judge(self, verdict):
        return verdict

    @transition(state, source=frozenset({"sent"}), target="read")
    @transition(state, source="new", target="sent")
    def advance(self):
        Effect.objects.create(name=f"advance {self.pk}")

    @transition(state, source="new", target="sent")
    def stamp(self, method=None, instance=None):
        return method, instance

    @transition(state, source="new", target="sent")
    def __hide(self):
        return None

    def hide(self):
        return self.__hide()

    @transition(weight, source=1, target=2, on_error=0)
    def unload(self):
        raise Refused

    @transition(state, source="new", target="sent")
    async def asend(self, do):
        await Effect.objects.acreate(name=f"asend {self.pk}")
        return await do(self)


class Parcelled(Letter):
    """A child whose transition goes on from that of its parent."""

    class Meta:
        proxy = True

    @transition("state", source="new", target="sent")
    def send(self, do=lambda letter: None):
        Effect.objects.create(name=f"parcel {self.pk}")
        return super().send(do)


class Contract(Steps, VersionedModel):
    """A row with a version."""

    state = FSMField(default=Steps.State.NEW, choices=Steps.State, protected=True)

    class Meta(VersionedModel.Meta):
        abstract = False

    @transition(state, source="new", target="sent", conditions=[is_sealed])
    def send(self, do=lambda contract: None):
        Effect.objects.create(name=f"send {self.pk}")
        return do(self)

    @transition(state, source=["new", "sent"], target="lost")
    def lose(self, do=lambda contract: None):
        Effect.objects.create(name=f"lose {self.pk}")
        return do(self)


class Lease(TransitionsMixin, Account):
    """A row in two tables: the version in the first, the state in the second."""

    state = FSMField(default="new", protected=True)
    signed_at = models.DateTimeField(auto_now=True)

    @transition(state, source="new", target="sent")
    def send(self, do=lambda lease: None):
        Effect.objects.create(name=f"send {self.pk}")
        return do(self)


class Post(TransitionsMixin, models.Model):
    """A first table with a state, but without a version."""

    state = FSMField(default="new", protected=True)

    def __str__(self) -> str:
        return self.state

    @transition(state, source="new", target="sent")
    def send(self):
        return None


class Registered(Post, VersionedModel):
    """A row whose version is in the second table."""

    number = models.IntegerField(default=0)
    noted_at = models.DateTimeField(auto_now=True)

    objects = VersionedManager()

    class Meta:
        base_manager_name = "objects"


class Stage(models.Model):
    """A state with a row of its own."""

    code = models.CharField(max_length=10, primary_key=True)

    def __str__(self) -> str:
        return self.code


class Task(TransitionsMixin, models.Model):
    """A row whose state refers to another row; its key is a text."""

    name = models.CharField(max_length=20, primary_key=True)
    stage = FSMKeyField(Stage, models.PROTECT, default="todo", protected=True)
    mood = FSMField(default="calm")

    def __str__(self) -> str:
        return self.name

    @transition(stage, source="todo", target="done")
    def finish(self):
        self.mood = "glad"

    @transition(mood, source="*", target="cross")
    def annoy(self):
        return self.mood


class Unmixed(models.Model):
    """A model that forgot the mixin."""

    state = FSMField(default="new")

    def __str__(self) -> str:
        return self.state

    @transition(state, source="new", target="sent")
    def send(self):
        return None


def is_urgent(invoice):
    return invoice.urgent


def may_approve(invoice, user):
    return user.has_perm("tests.change_invoice") and user.username != "clerk"


class Invoice(TransitionsMixin, VersionedModel):
    """A row that people edit and move, with a field of every kind."""

    class State(models.TextChoices):
        OPEN = "open", "to be paid"
        APPROVED = "approved", "approved"
        PAID = "paid", "paid"
        LOST = "lost", "written off"

    name = models.CharField(max_length=40)
    amount = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    due = models.DateField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    urgent = models.BooleanField(default=False)
    kind = models.CharField(
        max_length=10, choices=[("goods", "Goods"), ("work", "Work")], default="work"
    )
    terms = models.JSONField(default=dict, blank=True)
    scan = models.FileField(blank=True)
    ticket = models.ForeignKey(Ticket, models.SET_NULL, null=True, blank=True)
    effects = models.ManyToManyField(Effect, blank=True)
    state = FSMField(default=State.OPEN, choices=State, protected=True)

    def __str__(self) -> str:
        return self.name

    @transition(
        state,
        source=["open", "paid"],
        target="approved",
        permission=may_approve,
        custom={"label": "Approve it"},
    )
    def approve(self):
        Effect.objects.create(name=f"approve {self.pk}")

    @transition(state, source=["open", "approved"], target="approved")
    def remind_again(self):
        Effect.objects.create(name=f"remind {self.pk}")

    @transition(state, source="open", target="paid", custom={"form": "tests.sites.PaymentForm"})
    def pay(self, means, amount=None):
        if means == "gold":
            raise ValidationError("100 % of the bank's gold is gone.")
        if means == "lead":
            raise Refused
        self.name = f"{self.name} by {means}"

    @transition(state, source="open", target="lost", custom={"admin": False})
    def file_away(self):
        return None

    @transition(state, source="open", target="lost")
    def lend_to(self, somebody):
        return somebody

    @transition(state, source="open", target="paid", on_error="lost")
    def collect(self):
        raise Refused

    @transition(state, source="open", target="paid", conditions=[is_urgent])
    def hurry(self):
        return None

    @transition(state, source="open", target=RETURN_VALUE("paid", "lost"))
    async def settle(self):
        await Effect.objects.acreate(name=f"settle {self.pk}")
        return "paid"
