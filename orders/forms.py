"""What a client may send, and how its JSON is read."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.http import HttpRequest

from .models import Product

LARGEST_ID = 2**63 - 1


class BadInput(Exception):
    """What was sent cannot be understood; `errors` has a list of sentences for each field."""

    def __init__(self, message: str, errors: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or {}


class OrderForm(forms.Form):
    product = forms.IntegerField(min_value=1, max_value=LARGEST_ID)
    quantity = forms.IntegerField(min_value=1, max_value=1_000)
    client_reference = forms.RegexField(r"^[!-~]+\Z", max_length=64, required=False)

    def clean_product(self) -> Product:
        product = Product.objects.filter(pk=self.cleaned_data["product"]).first()
        if product is None:
            raise forms.ValidationError("There is no such product.")
        return product

    def clean_client_reference(self) -> str | None:
        return self.cleaned_data["client_reference"] or None


class QuantityForm(forms.Form):
    quantity = forms.IntegerField(min_value=1, max_value=1_000)


class PaymentForm(forms.Form):
    amount = forms.IntegerField(min_value=1, max_value=LARGEST_ID // 2)


def read(form_class: type[forms.Form], request: HttpRequest) -> dict[str, Any]:
    """
    Give the fields that *form_class* finds in the JSON body of *request*.

    Raises: `BadInput`, which says what is wrong with which field.
    """
    form = form_class(_read_object(request.body))
    if not form.is_valid():
        errors = {name: list(map(str, found)) for name, found in form.errors.items()}
        raise BadInput("Some fields are missing or wrong.", errors)
    return form.cleaned_data


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput("The body is not JSON.") from error
    if not isinstance(value, dict):
        raise BadInput("The body is not a JSON object.")
    return value
