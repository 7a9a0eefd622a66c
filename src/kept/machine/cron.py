"""Cron expressions and the ids of what they fire (protocol A4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

MS_PER_SECOND = 1_000


def instants_after(cron: str, after_ms: int) -> Iterator[int]:
    """The instants (ms) of an expression in UTC, strictly after `after_ms`.

    Five fields, or six with seconds first. Raises `ValueError` for what is not an expression; ends
    where it never fires again.
    """
    try:
        start = datetime.fromtimestamp(after_ms // MS_PER_SECOND, UTC)
        occurrences = CronSim(cron, start)
        for occurrence in occurrences:
            yield int(occurrence.timestamp()) * MS_PER_SECOND
    except CronSimError as error:
        raise ValueError(f"cron: {error}") from None
    except OverflowError:
        # Beyond the year 9999 there is no calendar.
        return


def next_instant(cron: str, after_ms: int) -> int | None:
    """The first instant after `after_ms`; None where it never fires again."""
    return next(instants_after(cron, after_ms), None)


def expand(template: str, schedule_id: str, instant: int) -> str:
    """The id of the promise that a schedule fires at an instant."""
    expanded = template.replace("{{.timestamp}}", str(instant))
    return expanded.replace("{{.id}}", schedule_id)
