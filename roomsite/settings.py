"""The project's settings. Everything that differs from place to place comes from the environment.

    DATABASE_URL          sqlite:///path or postgres://user:password@host:port/name
                          absent: db.sqlite3 beside manage.py
    REDIS_URL             redis://…, rediss://… or unix://…
                          absent: processes hear each other over PostgreSQL, if that is the database
    ROOMS_WORKERS         how many processes serve, where there is neither; `runrooms --workers` sets it
                          absent: one, which keeps in memory what processes would share
    SECRET_KEY            a long secret; needed wherever DEBUG is off
    DEBUG                 on or off
                          absent: on as long as there is no SECRET_KEY, so a site with a secret is never open
    ALLOWED_HOSTS         host names, separated by commas
    CSRF_TRUSTED_ORIGINS  origins with their scheme, separated by commas
    HTTPS                 on or off: redirects to https, HSTS, secure cookies; absent: the opposite of DEBUG
    HSTS_SECONDS          how long browsers shall insist on https; absent: a year
    BEHIND_PROXY          on or off: the proxy in front sets X-Forwarded-Proto and is believed; absent: off
    STATIC_ROOT           where `collectstatic` puts the static files; absent: staticfiles beside manage.py
    LOG_LEVEL             DEBUG, INFO, WARNING, ERROR or CRITICAL; absent: INFO

A malformed value stops the start with a message that says what was found and what is lawful.
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


def malformed(name: str, value: str, lawful: str) -> ImproperlyConfigured:
    """The error for a variable that cannot be understood."""
    return ImproperlyConfigured(f"The environment variable {name} is {value!r}. Lawful: {lawful}.")


def concealed(url: str) -> str:
    """An address as it may be shown: errors end up in logs, and addresses hold passwords."""
    return f"{url.partition(':')[0]}:…" if "@" in url or "?" in url else url


def text(name: str) -> str:
    """The variable's value without outer space; an empty variable counts as absent."""
    return os.environ.get(name, "").strip()


def switch(name: str, default: bool) -> bool:
    """A variable that is on or off."""
    words = {
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
    if value.lower() not in words:
        raise malformed(name, value, ", ".join(words))
    return words[value.lower()]


def number(name: str, default: int) -> int:
    """A variable that is a whole number, zero or more."""
    value = text(name)
    if not value:
        return default
    if not (value.isascii() and value.isdigit()):
        raise malformed(name, value, "a whole number, zero or more")
    return int(value)


def listing(name: str) -> list[str]:
    """A variable that holds several values, separated by commas."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


def hosts(name: str) -> list[str]:
    """Host names, as Django compares them with the Host header."""
    for host in (found := listing(name)):
        if "/" in host or " " in host:
            raise malformed(
                name, host, "host names without scheme or path, separated by commas: example.org,.example.net"
            )
    return found


def origins(name: str) -> list[str]:
    """Origins, as browsers send them in the Origin header."""
    for origin in (found := listing(name)):
        # A star stands for any subdomain. A browser sends a port or none, and never a path.
        if not re.fullmatch(r"https?://[^/?#@\s]+", origin):
            raise malformed(
                name, origin, "origins with scheme and no path, separated by commas: https://example.org"
            )
    return found


def database(name: str) -> dict[str, Any]:
    """The one database, from its address."""
    lawful = "sqlite:///path/of/a/file or postgres://user:password@host:port/name"
    value = text(name) or f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
    try:
        found: dict[str, Any] = {**dj_database_url.parse(value, conn_max_age=60, conn_health_checks=True)}
    except (ValueError, KeyError) as error:
        raise malformed(name, concealed(value), lawful) from error
    node = found["ENGINE"].rpartition(".")[2]
    if node not in {"sqlite3", "postgresql"} or not found["NAME"]:
        raise malformed(name, concealed(value), lawful)
    if node == "sqlite3":
        if found["NAME"] == ":memory:":
            raise malformed(name, value, f"{lawful}; in memory each thread would see a database of its own")
        found["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",  # else one that reads and then writes can fail halfway
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            **found.get("OPTIONS", {}),
        }
        # A file, since several threads use it; with the process's id, since several runs may go on at once.
        found["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"rooms-test-{os.getpid()}.sqlite3")}
    return found


def redis(name: str) -> str | None:
    """The address of Redis, if there is one."""
    value = text(name)
    if not value:
        return None
    from redis.connection import parse_url  # only here: a site without Redis need not load its client

    try:
        parse_url(value)
    except ValueError as error:
        lawful = "redis://host:port/0, rediss://host:port/0 or unix:///path"
        raise malformed(name, concealed(value), lawful) from error
    return value


def redis_layer(url: str) -> dict[str, Any]:
    """The channel layer on this Redis."""
    host = {
        "address": url,
        "socket_timeout": 15,  # above the layer's own waits, or they would count as failures
        "socket_connect_timeout": 2,
    }
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [host]}}


# Safety

DEBUG = switch("DEBUG", default=not text("SECRET_KEY"))
SECRET_KEY = text("SECRET_KEY")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "DEBUG is off and the environment variable SECRET_KEY is missing. Lawful: a secret of 50 or more "
            "characters, made once with: python -c 'import secrets; print(secrets.token_urlsafe(50))'"
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

# What the site is made of

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

# Stores, and the way between processes

DATABASES = {"default": database("DATABASE_URL")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The clients of other room servers are let in too, each in its own words.
ROOMS: dict[str, Any] = {"PROTOCOLS": ["native", "roomer", "rtbroadcaster", "goroomserver", "gowsev"]}

REDIS_URL = redis("REDIS_URL")
WORKERS = number("ROOMS_WORKERS", default=1)
if REDIS_URL is not None:
    LAYER = redis_layer(REDIS_URL)
    ROOMS["PRESENCE"] = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": REDIS_URL}}
    # For applications and rooms that choose it.
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
    # One process. Above its capacity this layer drops messages without a word.
    LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10_000}}
CHANNEL_LAYERS = {"default": LAYER}

# Signing in

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

# Language, time, files, log

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
    # Django's own handlers are silent with DEBUG off; here everything goes one way.
    "loggers": {"django": {"handlers": [], "level": "INFO", "propagate": True}},
}
