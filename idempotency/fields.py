"""The column of a record's primary key."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    Base = models.UUIDField[Any, Any]
else:
    Base = models.UUIDField


class RecordIdField(Base):
    """
    A UUID of any 128 bits, kept so that its bytes are in order.

    MariaDB's own UUID type refuses bits that no RFC describes, and sorts by other bytes first.
    """

    def get_internal_type(self) -> str:
        return "RecordIdField"

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return {"postgresql": "uuid", "mysql": "binary(16)"}.get(connection.vendor, "char(32)")

    def rel_db_type(self, connection: BaseDatabaseWrapper) -> str:
        return self.db_type(connection)

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        record = self.to_python(value)
        if record is None or connection.vendor == "postgresql":
            return record
        return record.bytes if connection.vendor == "mysql" else record.hex

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        return uuid.UUID(bytes=value) if isinstance(value, bytes) else self.to_python(value)
