"""The admin site of the tests."""

from django import forms
from django.contrib import admin

from idempotency.admin import TransitionsAdmin, VersionedAdmin

from .models import Contract, Invoice, Lease, Letter, Sheet, Task

site = admin.AdminSite(name="desk")


class PaymentForm(forms.Form):
    means = forms.CharField(max_length=10, help_text="Anything but gold.")
    amount = forms.DecimalField(required=False)


class NotedForm(forms.Form):
    note = forms.CharField()


@admin.register(Invoice, site=site)
class InvoiceAdmin(VersionedAdmin, TransitionsAdmin, admin.ModelAdmin):
    list_display = ("name", "amount", "urgent", "state")
    list_editable = ("amount", "urgent")


@admin.register(Sheet, site=site)
class SheetAdmin(VersionedAdmin, admin.ModelAdmin):
    list_display = ("name", "cells")
    list_editable = ("cells",)
    fields = ("name", "cells")


@admin.register(Contract, site=site)
class ContractAdmin(TransitionsAdmin, VersionedAdmin, admin.ModelAdmin):
    fieldsets = ((None, {"fields": ("name",)}), ("More", {"fields": (("sealed", "marks"),)}))


@admin.register(Lease, site=site)
class LeaseAdmin(TransitionsAdmin, VersionedAdmin, admin.ModelAdmin):
    fields = ("name", "note")
    list_display = ("pk", "note")
    list_editable = ("note",)


@admin.register(Letter, Task, site=site)
class MovedAdmin(TransitionsAdmin, admin.ModelAdmin):
    fields = ("name",)
