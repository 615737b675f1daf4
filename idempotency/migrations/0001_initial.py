from django.db import migrations, models

import idempotency.fields


TABLE = 'idempotency_idempotencyrecord'


def leave_room(apps, schema_editor):
    # A completion then finds room on its row's page, and makes no new entry in any index.
    if schema_editor.connection.vendor == 'postgresql':
        schema_editor.execute(f'ALTER TABLE {TABLE} SET (fillfactor = 70)')


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='IdempotencyRecord',
            fields=[
                ('id', idempotency.fields.RecordIdField(editable=False, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('in_progress', 'in progress'), ('completed', 'completed'), ('released', 'released'), ('unknown', 'unknown')], max_length=16, verbose_name='state')),
                ('token', models.BigIntegerField(verbose_name='fencing token')),
                ('attempts', models.PositiveIntegerField(default=1, verbose_name='attempts')),
                ('scope', models.CharField(max_length=255, verbose_name='scope')),
                ('operation', models.CharField(max_length=255, verbose_name='operation')),
                ('key', models.CharField(max_length=255, verbose_name='key')),
                ('fingerprint', models.CharField(blank=True, max_length=80, verbose_name='fingerprint')),
                ('status', models.PositiveSmallIntegerField(null=True, verbose_name='status')),
                ('headers', models.JSONField(null=True, verbose_name='headers')),
                ('body', models.BinaryField(null=True, verbose_name='body')),
                ('created_at', models.DateTimeField(verbose_name='created at')),
                ('ends_at', models.DateTimeField(null=True, verbose_name='lease ends at')),
                ('completed_at', models.DateTimeField(null=True, verbose_name='completed at')),
                ('expires_at', models.DateTimeField(null=True, verbose_name='expires at')),
                ('purge_after', models.DateTimeField(db_index=True, verbose_name='purged after')),
            ],
            options={
                'verbose_name': 'idempotency record',
                'verbose_name_plural': 'idempotency records',
            },
        ),
        migrations.RunPython(leave_room, migrations.RunPython.noop),
    ]
