from django.db import migrations


class RunPostgreSQL(migrations.RunSQL):
    """Statements for PostgreSQL; other databases do without."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):

    dependencies = [
        ('idempotency', '0003_lock_lease'),
    ]

    operations = [
        RunPostgreSQL(
            [
                'CREATE SEQUENCE idempotency_lock_token',
                # The other backends' tokens count microseconds: these go on from there.
                "SELECT setval('idempotency_lock_token',"
                ' (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint)',
            ],
            'DROP SEQUENCE idempotency_lock_token',
        ),
    ]
