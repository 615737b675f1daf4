import django.db.models.deletion
import django.db.models.manager
import django_fsm
import idempotency.optimistic.versions
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0002_first_products'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='order',
            options={'base_manager_name': 'versioned', 'ordering': ('-id',)},
        ),
        migrations.AlterModelManagers(
            name='order',
            managers=[
                ('objects', django.db.models.manager.Manager()),
                ('versioned', django.db.models.manager.Manager()),
            ],
        ),
        migrations.AddField(
            model_name='order',
            name='version',
            field=idempotency.optimistic.versions.VersionField(default=1, editable=False),
        ),
        migrations.AlterField(
            model_name='order',
            name='paid',
            field=models.PositiveBigIntegerField(default=0, help_text='In cents, less what went back.'),
        ),
        migrations.AlterField(
            model_name='order',
            name='status',
            field=django_fsm.FSMField(choices=[('placed', 'placed'), ('paid', 'paid'), ('shipped', 'shipped'), ('cancelled', 'cancelled')], default='placed', max_length=16, protected=True),
        ),
        migrations.AlterField(
            model_name='payment',
            name='order',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='%(class)ss', to='orders.order'),
        ),
        migrations.CreateModel(
            name='Refund',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('amount', models.PositiveBigIntegerField(help_text='In cents.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('order', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='%(class)ss', to='orders.order')),
            ],
            options={
                'ordering': ('-id',),
                'abstract': False,
                'constraints': [models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='orders_refund_amount_positive')],
            },
        ),
    ]
