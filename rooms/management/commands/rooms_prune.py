"""``manage.py rooms_prune``: deletes expired rows.

The servers do the same every ten minutes.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from rooms.conf import get_settings
from rooms.histories import HistoryHandler
from rooms.models import RevokedToken


class Command(BaseCommand):
    help = "Deletes messages beyond the history limits of their rooms, and revoked tokens that have expired."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count what would be deleted")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        messages = async_to_sync(_prune_histories)(dry_run)
        tokens = RevokedToken.objects.filter(expires__lt=timezone.now())
        expired = tokens.count() if dry_run else tokens.delete()[0]
        done = "Would delete" if dry_run else "Deleted"
        self.stdout.write(f"{done} {messages} messages and {expired} revoked tokens.")


async def _prune_histories(dry_run: bool) -> int:
    histories = HistoryHandler(get_settings().histories)
    try:
        return await histories.prune(dry_run=dry_run)
    finally:
        await histories.close()
