"""The example in the admin: orders are changed and moved on, what happened can only be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from idempotency.admin import TransitionsAdmin, VersionedAdmin

from .ledger import Invoice, Payment, Refund, Settlement
from .models import NotDue, Order, Product

if TYPE_CHECKING:
    Inline = admin.TabularInline[Any, Order]
    Admin = admin.ModelAdmin[Any]
else:  # Django's own classes take no type arguments.
    Inline, Admin = admin.TabularInline, admin.ModelAdmin


class ReadOnly:
    """Show rows that only the endpoints write."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class PaymentInline(ReadOnly, Inline):
    model = Payment
    fields = readonly_fields = ("id", "amount", "created_at")


class RefundInline(ReadOnly, Inline):
    model = Refund
    fields = readonly_fields = ("id", "amount", "created_at")


@admin.register(Product)
class ProductAdmin(Admin):
    list_display = ("name", "price", "stock")
    search_fields = ("name",)


@admin.register(Order)
class OrderAdmin(VersionedAdmin, TransitionsAdmin, Admin):
    list_display = ("id", "client_reference", "product", "quantity", "status", "total", "paid")
    list_filter = ("status", "created_at", "product")
    list_select_related = ("product",)
    fields = ("client_reference", "product", "quantity", "status", "total", "paid", "created_at")
    readonly_fields = ("product", "quantity", "total", "paid", "created_at")
    search_fields = ("client_reference__startswith",)
    inlines = (PaymentInline, RefundInline)
    transition_errors = (NotDue,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # Whoever places an order takes goods off the shelf: see OrderManager.place().

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Payment, Refund)
class PaymentAdmin(ReadOnly, Admin):
    list_display = ("id", "order", "amount", "created_at")
    list_select_related = ("order__product",)
    raw_id_fields = ("order",)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnly, Admin):
    list_display = ("__str__", "order", "total", "created_at")
    list_select_related = ("series", "order__product")


@admin.register(Settlement)
class SettlementAdmin(ReadOnly, Admin):
    list_display = ("day", "total", "created_at")
