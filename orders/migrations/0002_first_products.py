"""Put something on the shelves, so that there is something to order at once."""

from typing import Any

from django.db import migrations

PRODUCTS = [("Teapot", 2_400, 1_000), ("Tea bowl", 900, 1_000), ("Whisk", 1_500, 3)]


def fill_shelves(apps: Any, schema_editor: Any) -> None:
    products = apps.get_model("orders", "Product").objects.using(schema_editor.connection.alias)
    products.bulk_create(
        products.model(name=name, price=price, stock=stock) for name, price, stock in PRODUCTS
    )


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]

    operations = [migrations.RunPython(fill_shelves, migrations.RunPython.noop)]
