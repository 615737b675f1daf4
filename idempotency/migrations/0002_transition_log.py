
import idempotency.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('idempotency', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='TransitionLog',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('model', models.CharField(max_length=201, verbose_name='model')),
                ('object_id', models.CharField(max_length=255, verbose_name='object')),
                ('field', models.CharField(max_length=100, verbose_name='field')),
                ('transition', models.CharField(max_length=100, verbose_name='transition')),
                ('source', models.CharField(blank=True, max_length=255, verbose_name='from')),
                ('target', models.CharField(blank=True, max_length=255, verbose_name='to')),
                ('by', models.CharField(blank=True, max_length=255, verbose_name='by')),
                ('note', models.TextField(blank=True, verbose_name='note')),
                ('record_id', idempotency.fields.RecordIdField(null=True, verbose_name='idempotency record')),
                ('created_at', models.DateTimeField(verbose_name='at')),
            ],
            options={
                'verbose_name': 'transition',
                'verbose_name_plural': 'transitions',
                'ordering': ('-id',),
                'indexes': [models.Index(fields=['object_id', 'model'], name='idempotency_transition_of')],
            },
        ),
    ]
