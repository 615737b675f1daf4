"""The form that carries the version it was made for, and compares when it is stale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django import forms
from django.core import signing
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from ..optimistic import VersionedModel
from ..optimistic.versions import expected_version, version_field
from .values import as_sent, digest_of, in_words

if TYPE_CHECKING:
    Base = forms.ModelForm[Any]
else:  # Django's own class takes no type arguments.
    Base = forms.ModelForm

FIELD = "seen_version"
SALT = "idempotency.forms"


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a stale form: what is stored now beside what the user wants."""

    name: str
    label: str
    stored: str
    yours: str
    differs: bool
    changed_by_others: bool
    changed_by_you: bool

    @property
    def concerns(self) -> bool:
        """Whether somebody changed it, or it differs."""
        return self.differs or self.changed_by_others or self.changed_by_you


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a form was made for: a version, and a digest of each value that was shown."""

    version: int
    digests: dict[str, str]


class _SeenField(forms.Field):
    """The hidden field; it never counts as a change, and its errors are those of the form."""

    answer: str | None = None
    """What is rendered in place of what was sent."""

    def __init__(self) -> None:
        # Browsers keep a hidden value over a reload, which would keep the form stale.
        widget = forms.HiddenInput(attrs={"autocomplete": "off"})
        super().__init__(required=False, widget=widget)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False

    def bound_data(self, data: Any, initial: Any) -> Any:
        return data if self.answer is None else self.answer


class VersionedForm(Base):
    """
    A `ModelForm` of a `VersionedModel` that saves only over the version that the user has seen.

    If the row has changed since, the form is `stale`: it has an error with the code "stale",
    `changes` compares what is stored with what was sent, and the form that is shown then saves
    over what it shows. `save()` raises `StaleObject` for a change made after the validation.
    """

    seen_version = _SeenField()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.instance, VersionedModel):
            raise TypeError(f"{type(self.instance).__name__} has no version to guard a form with.")
        if self.instance._state.adding or self.instance.pk is None:
            del self.fields[FIELD]
            return
        # Taken now, as a save counts it up.
        self._version = expected_version(self.instance, version_field(type(self.instance)))

    def get_initial_for_field(self, field: forms.Field, field_name: str) -> Any:
        if field_name == FIELD:
            return self._token()
        return super().get_initial_for_field(field, field_name)

    def full_clean(self) -> None:
        # Not in clean(): a derived form may have one that does not call ours.
        super().full_clean()
        if self.is_bound and FIELD in self.fields:
            self.cleaned_data.pop(FIELD, None)
            self._require_seen()

    def _require_seen(self) -> None:
        if isinstance(self._seen, ValidationError):
            self.fields[FIELD].answer = ""  # type: ignore[attr-defined]
            self.add_error(None, self._seen)
        elif self.stale:
            self.fields[FIELD].answer = self._token()  # type: ignore[attr-defined]
            self.add_error(None, self.stale_error())

    @property
    def stale(self) -> bool:
        """Whether the row has changed since the form was shown."""
        seen = self._seen
        return isinstance(seen, _Seen) and seen.version != self._version

    def stale_error(self) -> ValidationError:
        """Give the error of a stale form; override it for other words."""
        return ValidationError(_STALE, code="stale")

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields of a stale form, in their order; nothing if it is not stale."""
        seen = self._seen
        if not isinstance(seen, _Seen) or not self.stale:
            return ()
        self.is_valid()  # What was sent is compared as it was understood.
        return tuple(self._change(name, seen.digests.get(name)) for name in self._compared())

    def _change(self, name: str, shown: str | None) -> Change:
        field, stored = self.fields[name], self._stored(name)
        understood = name in self.cleaned_data
        yours = self.cleaned_data[name] if understood else self[name].data
        is_stored, is_yours = digest_of(field, stored), digest_of(field, yours)
        return Change(
            name,
            str(self[name].label),
            in_words(field, stored),
            in_words(field, yours) if understood else as_sent(yours),
            differs=is_stored != is_yours,
            changed_by_others=shown is not None and shown != is_stored,
            changed_by_you=shown != is_yours,
        )

    @cached_property
    def changed_data(self) -> list[str]:
        if not self.stale:
            return super().changed_data
        # Beside what is stored now, what others have changed would look changed by the user.
        mine = {change.name for change in self.changes if change.changed_by_you}
        return [name for name in super().changed_data if name in mine]

    def _compared(self) -> list[str]:
        """Give the names of the fields that the user sees and may change."""
        return [
            bound.name
            for bound in self.visible_fields()
            if not bound.field.disabled and not isinstance(bound.field.widget, forms.PasswordInput)
        ]

    def _stored(self, name: str) -> Any:
        """Give what was read of the row: `initial`, as validation changes the instance."""
        return self.get_initial_for_field(self.fields[name], name)

    def _object(self) -> list[str]:
        return [self.instance._meta.concrete_model._meta.label_lower, str(self.instance.pk)]

    def _token(self) -> str:
        digests = {
            name: digest_of(self.fields[name], self._stored(name)) for name in self._compared()
        }
        return signing.dumps([*self._object(), self._version, digests], salt=SALT, compress=True)

    @cached_property
    def _seen(self) -> _Seen | ValidationError | None:
        """What was sent of the hidden field, or what is wrong with it."""
        if not self.is_bound or FIELD not in self.fields:
            return None
        token = self[FIELD].data
        if not token:
            return ValidationError(_MISSING, code="missing")
        try:
            model, key, version, digests = signing.loads(str(token), salt=SALT)
        except (signing.BadSignature, ValueError):
            return ValidationError(_INVALID, code="invalid")
        if [model, key] != self._object():
            return ValidationError(_OTHER, code="invalid")
        return _Seen(version, digests)


_MISSING = _(
    "This form does not say which version it was made for, so nothing was saved."
    " Reload the page, and enter your changes again."
)
_INVALID = _(
    "The version that this form was made for cannot be read, so nothing was saved."
    " Reload the page, and enter your changes again."
)
_OTHER = _(
    "This form was made for another object, so nothing was saved."
    " Reload the page, and enter your changes again."
)
_STALE = _(
    "This has been changed since you opened it, so nothing was saved."
    " Saving again overwrites it with what you see in the form."
)


def versioned(form: Any, base: type[VersionedForm] = VersionedForm) -> Any:
    """Give *form*, a class of a `ModelForm`, with the guard of a `VersionedForm`."""
    if issubclass(form, base):
        return form
    return type(form)(form.__name__, (base, form), {"__module__": form.__module__})
