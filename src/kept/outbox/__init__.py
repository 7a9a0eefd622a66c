"""The outbox: a job written in the caller's own database transaction, and moved into kept by a relay.

with database:  # a transaction of sqlite3
    database.execute("INSERT INTO orders …")
    kept.outbox.enqueue(database, "send_receipt", args={"order": 42})

What it guarantees, and what not, is in docs/guards.md.
"""

from kept.outbox.relay import Passed, Relay
from kept.outbox.tables import statements
from kept.outbox.writing import create_table, create_table_async, enqueue, enqueue_async

__all__ = [
    "Passed",
    "Relay",
    "create_table",
    "create_table_async",
    "enqueue",
    "enqueue_async",
    "statements",
]
