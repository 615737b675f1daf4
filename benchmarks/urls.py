"""A path for each contender."""

from django.urls import path

from . import frameworks
from .contenders import BARE, OURS, by_hand, in_redis, others

CONTENDERS = [BARE, *by_hand(), *OURS, *in_redis()]
PEERS, ABSENT = others()
FRAMEWORKS = frameworks.contenders()
urlpatterns = [
    path(each.path, each.view, name=each.path) for each in [*CONTENDERS, *PEERS, *FRAMEWORKS]
]
