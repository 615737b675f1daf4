"""What the demo's server runs: the example and the static files of its admin."""

from django.contrib.staticfiles.handlers import StaticFilesHandler

from config.wsgi import application as example

application = StaticFilesHandler(example)
