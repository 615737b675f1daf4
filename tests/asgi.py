"""What real ASGI servers serve for the tests."""

from django.core.asgi import get_asgi_application

application = get_asgi_application()
