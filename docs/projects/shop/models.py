"""What the shop sells, and to whom."""

from django.conf import settings
from django.db import models


class Order(models.Model):
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True)
    drink = models.CharField(max_length=20)

    def __str__(self):
        return self.drink
