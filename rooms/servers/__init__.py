"""The server behind ``manage.py runrooms``: uvicorn on several addresses in one process.

``addresses`` reads what the options say, ``doors`` finds what is behind an address, ``listening`` takes the
ports and looks at the certificate, ``running`` serves until a signal comes.
"""
