"""What all shops have in common: a database in one file, and the app in its place."""

from pathlib import Path

APPS = ["django.contrib.auth", "django.contrib.contenttypes", "idempotency", "shop"]

SETTINGS = {
    "DEBUG": True,
    "SECRET_KEY": "change me",
    "ALLOWED_HOSTS": ["127.0.0.1", "localhost"],
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "DATABASES": {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(__file__).parent.parent / "shop.sqlite3",
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
    },
}
