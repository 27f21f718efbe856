"""Which names belong to registered users: guests may not have them, however they spell them. In threads."""

from __future__ import annotations

import re
from functools import reduce
from operator import or_

from django.contrib.auth import get_user_model
from django.db.models import Q

from rooms import names


def are_registered(wanted: dict[str, str]) -> dict[str, bool]:
    """Of guests' names, by their keys, whether a registered user has them."""
    users, field = get_user_model()._default_manager, get_user_model().USERNAME_FIELD
    alike = reduce(or_, (_alike(key, field) for key in wanted))
    found = {names.user_key(each) for each in users.filter(alike).values_list(field, flat=True)}
    return {key: key in found for key in wanted}


def _alike(key: str, field: str) -> Q:
    """Finds those whose names have this key, and perhaps others."""
    if key.isascii() and "ss" not in key:
        return Q(**{f"{field}__iexact": key})
    # Databases know upper and lower case of ASCII only: what may be alike is compared here.
    pattern = "".join(each if each.isascii() else ".{1,2}" for each in map(re.escape, key))
    return Q(**{f"{field}__iregex": f"^{pattern.replace('ss', '(ss|.)')}$"})
