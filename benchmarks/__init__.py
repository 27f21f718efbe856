"""How fast Rooms is: beside other servers, and beside what it was.

``make bench`` measures Rooms beside other servers, on one machine, in one run. ``__main__`` reads the
options; ``measuring`` goes through rounds of ``scenarios`` and ``peers``, has each server started by
``serving`` and the generator in ``generator/`` speak to it (``load``); ``results`` makes medians, tables and
the page of them, ``chart`` the picture. The small servers that are measured beside Rooms are in ``servers/``.

``make bench-check`` counts what Rooms itself does: ``check``.
"""

from __future__ import annotations
