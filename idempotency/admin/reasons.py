"""Why somebody does by hand what the app does by itself."""

from __future__ import annotations

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.utils.translation import gettext_lazy as _


class ReasonForm(forms.Form):
    """The reason of whoever decides, for those who ask later."""

    required_css_class = "required"

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("It is kept in the history, with your name."),
        max_length=1_000,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
    )
