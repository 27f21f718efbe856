"""The server behind ``manage.py runrooms``: uvicorn on several addresses, in one process or in several.

``addresses`` reads what the options say, ``doors`` finds what is behind an address, ``listening`` takes the
ports and looks at the certificate, ``readiness`` at the rest of the site, ``running`` serves until a signal
comes. With several processes ``supervising`` keeps them running: ``workers`` are they as it sees them, and
``lifeline`` is how they hear of it.
"""
