"""The server behind ``manage.py runrooms``: uvicorn in one or more processes.

``addresses`` parses the options, ``preflight`` checks the site, ``listeners`` opens ports and
certificates, ``server`` serves until a shutdown signal. ``http_upgrade`` passes a WebSocket handshake to
``websocket``, which stands on ``handshake``, ``transport`` and ``keepalive``. With several processes
``supervisor`` keeps the workers running and exchanges messages with each of them over a ``control_pipe``.
"""
