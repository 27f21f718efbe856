"""Benchmarks of Rooms, compared with other servers and with earlier versions.

``make bench`` measures Rooms and other servers on one machine in one run. ``__main__`` parses the
options; ``measuring`` runs rounds of ``scenarios`` and ``peers``, for which ``serving`` starts the
servers and ``load`` runs the generator of ``generator/``; ``results`` writes medians and tables to the
page, ``chart`` the picture. The small servers for comparison are in ``servers/``.

``make bench-check`` counts the work of Rooms itself: ``check``.
"""

from __future__ import annotations
