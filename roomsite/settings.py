"""The settings of the example site, configured by environment variables.

    DATABASE_URL          sqlite:///path or postgres://user:password@host:port/name
                          absent: db.sqlite3 beside manage.py
    REDIS_URL             redis://…, rediss://… or unix://…
                          absent: processes share PostgreSQL as channel layer, if that is the database
    ROOMS_WORKERS         number of processes, without Redis and PostgreSQL; set by `runrooms --workers`
                          absent: one, with channel layer and presence in memory
    SECRET_KEY            a long secret; needed wherever DEBUG is off
    DEBUG                 on or off
                          absent: on without a SECRET_KEY, so a site with a secret never shows errors
    ALLOWED_HOSTS         host names, separated by commas
    CSRF_TRUSTED_ORIGINS  origins with their scheme, separated by commas
    HTTPS                 on or off: redirects to https, HSTS, secure cookies; absent: the opposite of DEBUG
    HSTS_SECONDS          time for which browsers use only https; absent: a year
    BEHIND_PROXY          on or off: trust the X-Forwarded-Proto of the proxy in front; absent: off
    STATIC_ROOT           where `collectstatic` puts the static files; absent: staticfiles beside manage.py
    LOG_LEVEL             DEBUG, INFO, WARNING, ERROR or CRITICAL; absent: INFO

A malformed value stops the start with an error that says what was got and what is expected.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def malformed(name: str, value: str, expected: str) -> ImproperlyConfigured:
    """Make the error for a malformed variable."""
    return ImproperlyConfigured(f"Expected {expected} as the environment variable {name}, got {value!r}.")


def redacted(url: str) -> str:
    """Redact what may hold a password, because errors are logged."""
    return f"{url.partition(':')[0]}:…" if "@" in url or "?" in url else url


def text(name: str) -> str:
    """Read a variable without surrounding space; empty is the same as absent."""
    return os.environ.get(name, "").strip()


def switch(name: str, default: bool) -> bool:
    """Read a variable that is on or off."""
    values = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    value = text(name)
    if not value:
        return default
    if value.lower() not in values:
        raise malformed(name, value, f"one of {', '.join(values)}")
    return values[value.lower()]


def number(name: str, default: int) -> int:
    """Read a variable that is an integer of at least 0."""
    value = text(name)
    if not value:
        return default
    if not (value.isascii() and value.isdigit()):
        raise malformed(name, value, "an integer of at least 0")
    return int(value)


def listing(name: str) -> list[str]:
    """Read a variable that holds values separated by commas."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


def hosts(name: str) -> list[str]:
    """Read host names, as Django compares them with the Host header."""
    for host in (found := listing(name)):
        if "/" in host or " " in host:
            raise malformed(
                name, host, "host names without scheme or path, separated by commas: example.org,.example.net"
            )
    return found


def origins(name: str) -> list[str]:
    """Read origins, as browsers send them in the Origin header."""
    for origin in (found := listing(name)):
        # A star matches any subdomain. Browsers send no path in the Origin header.
        if not re.fullmatch(r"https?://[^/?#@\s]+", origin):
            raise malformed(
                name, origin, "origins with scheme and no path, separated by commas: https://example.org"
            )
    return found


def database(name: str) -> dict[str, Any]:
    """Read the URL of the database."""
    expected = "sqlite:///path/of/a/file or postgres://user:password@host:port/name"
    value = text(name) or f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
    try:
        found: dict[str, Any] = {**dj_database_url.parse(value, conn_max_age=60, conn_health_checks=True)}
    except (ValueError, KeyError) as error:
        raise malformed(name, redacted(value), expected) from error
    engine = found["ENGINE"].rpartition(".")[2]
    if engine not in {"sqlite3", "postgresql"} or not found["NAME"]:
        raise malformed(name, redacted(value), expected)
    if engine == "sqlite3":
        if found["NAME"] == ":memory:":
            raise malformed(name, value, f"{expected}, because a database in memory belongs to one thread,")
        found["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",  # a deferred transaction fails where it writes after a read
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            **found.get("OPTIONS", {}),
        }
        # A file, because several threads use it; with the process id, because test runs may be parallel.
        found["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"rooms-test-{os.getpid()}.sqlite3")}
    return found


def redis(name: str) -> str | None:
    """Read the URL of Redis, if there is one."""
    value = text(name)
    if not value:
        return None
    from redis.connection import parse_url  # a site without Redis does not load its client

    try:
        parse_url(value)
    except ValueError as error:
        expected = "redis://host:port/0, rediss://host:port/0 or unix:///path"
        raise malformed(name, redacted(value), expected) from error
    return value


def redis_layer(url: str) -> dict[str, Any]:
    """Configure the channel layer on Redis."""
    host = {
        "address": url,
        "socket_timeout": 15,  # longer than the blocking reads of the layer
        "socket_connect_timeout": 2,
    }
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [host]}}


# Security

DEBUG = switch("DEBUG", default=not text("SECRET_KEY"))
SECRET_KEY = text("SECRET_KEY")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "DEBUG is off and the environment variable SECRET_KEY is missing. Expected a secret of at least "
            "50 characters, made once with: python -c 'import secrets; print(secrets.token_urlsafe(50))'"
        )
    SECRET_KEY = "django-insecure-only-for-trying-things-out-on-your-own-machine"

ALLOWED_HOSTS = hosts("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = origins("CSRF_TRUSTED_ORIGINS")

HTTPS = switch("HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = HTTPS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
HSTS_SECONDS = number("HSTS_SECONDS", default=365 * 24 * 3600)
SECURE_HSTS_SECONDS = HSTS_SECONDS if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
if switch("BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# Applications

INSTALLED_APPS = [
    "daphne",  # first: it gives `runserver` WebSockets
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rooms",
    "roomsite",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "roomsite.urls"
ASGI_APPLICATION = "roomsite.asgi.application"

# Databases and channel layer

DATABASES = {"default": database("DATABASE_URL")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Clients of the other room servers are allowed, too.
ROOMS: dict[str, Any] = {"PROTOCOLS": ["native", "roomer", "rtbroadcaster", "goroomserver", "gowsev"]}

REDIS_URL = redis("REDIS_URL")
WORKERS = number("ROOMS_WORKERS", default=1)
if REDIS_URL is not None:
    LAYER = redis_layer(REDIS_URL)
    ROOMS["PRESENCE"] = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": REDIS_URL}}
    # Applications and rooms may choose it.
    ROOMS["HISTORIES"] = {
        "redis": {"BACKEND": "rooms.histories.redis.RedisHistory", "OPTIONS": {"url": REDIS_URL}}
    }
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    LAYER = {"BACKEND": "rooms.layers.postgres.PostgresLayer"}
    ROOMS["PRESENCE"] = {"BACKEND": "rooms.presence.database.DatabasePresence"}
elif WORKERS > 1:
    LAYER = {"BACKEND": "rooms.layers.unix.LocalLayer"}
    ROOMS["PRESENCE"] = {"BACKEND": "rooms.presence.database.DatabasePresence"}
else:
    # One process. This layer silently drops messages above its capacity.
    LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10_000}}
CHANNEL_LAYERS = {"default": LAYER}

# Authentication

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

# Language, time, static files, logging

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = text("STATIC_ROOT") or BASE_DIR / "staticfiles"

LOG_LEVEL = text("LOG_LEVEL").upper() or "INFO"
if LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
    raise malformed("LOG_LEVEL", text("LOG_LEVEL"), "DEBUG, INFO, WARNING, ERROR, CRITICAL")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    # Django's own handlers do not log with DEBUG off.
    "loggers": {"django": {"handlers": [], "level": "INFO", "propagate": True}},
}
