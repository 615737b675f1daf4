"""What the measured views write: an order, and the record of the hand-written floor."""

from django.db import models


class Order(models.Model):
    """The one effect of every measured request."""

    product = models.CharField(max_length=50)
    quantity = models.IntegerField()
    made_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.quantity} {self.product}"


class Record(models.Model):
    """The narrowest record that can tell twins, reuse and replay apart."""

    id = models.UUIDField(primary_key=True)
    fingerprint = models.BinaryField()
    status = models.SmallIntegerField(null=True)
    body = models.BinaryField(null=True)

    class Meta:
        db_table = "benchmarks_record"

    def __str__(self) -> str:
        return str(self.id)
