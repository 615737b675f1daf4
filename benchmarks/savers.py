"""Who competes in saving: models of the same columns that promise different things."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import models
from django_fsm import ConcurrentTransitionMixin, FSMIntegerField

from idempotency.models import VersionedModel


class Article(models.Model):
    """What all of them save; the last who saves wins."""

    title = models.CharField(max_length=100, default="a measured thing")
    body = models.TextField(default="leave it at the door " * 10)
    views = models.IntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.title


class PlainArticle(Article):
    version = models.BigIntegerField(default=1)


class VersionedArticle(Article, VersionedModel):
    pass


class StateArticle(ConcurrentTransitionMixin, Article):  # type: ignore[misc]
    """Guarded by its state instead: one that was saved in the same state is overwritten."""

    version = FSMIntegerField(default=1)


@dataclass(frozen=True, slots=True)
class Saver:
    """A library's model; *is_ours* tells whom the goal is for."""

    name: str
    model: type[models.Model]
    is_ours: bool = False


PLAIN = Saver("plain save", PlainArticle)
OURS = Saver("ours", VersionedArticle, is_ours=True)


def others() -> tuple[list[Saver], list[str]]:
    """Give the peers that are installed, and a line for each that cannot compete."""
    found = [Saver("django-fsm-2, ConcurrentTransitionMixin", StateArticle)]
    try:
        from concurrency.fields import IntegerVersionField
    except ImportError as reason:
        return found, [f"django-concurrency does not compete: {reason}"]

    class ConcurrencyArticle(Article):
        version = IntegerVersionField()

    return [*found, Saver("django-concurrency", ConcurrencyArticle)], []
