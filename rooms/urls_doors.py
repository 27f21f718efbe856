"""What plain HTTP is answered at the addresses of doors, to be included below each of them::

    path("ws", include("rooms.urls_doors"))

It answers at ``/ws`` and at everything below ``/ws/``. The sockets themselves are in ``routing.py``.
"""

from __future__ import annotations

from django.urls import re_path

from rooms.views.doors import upgrade_required

urlpatterns = [re_path(r"^(?:/|\Z)", upgrade_required)]
