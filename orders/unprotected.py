"""The same endpoints without `@idempotent_view`, to see in the demo what it is worth."""

from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .views import pay_order, place_order

create = csrf_exempt(require_POST(place_order))
pay = csrf_exempt(require_POST(pay_order))
