"""What every store must do: subclass `StoreSuite` and say how to open one.

    class TestMyStore(StoreSuite):
        @contextlib.asynccontextmanager
        async def opened(self):
            store = MyStore(...)
            await store.open()
            try:
                yield store
            finally:
                await store.close()

Each test is a coroutine and needs nothing but a store that is open and empty. What only some stores
can show (several processes, a full disk) is not in here.
"""

from __future__ import annotations

from kept.contract.store_edge_cases import EdgeCases
from kept.contract.store_entry_cases import EntryCases
from kept.contract.store_queue_cases import QueueCases
from kept.contract.store_record_cases import RecordCases
from kept.contract.store_scan_cases import ScanCases
from kept.contract.store_transaction_cases import TransactionCases
from kept.contract.store_tree_cases import TreeCases


class StoreSuite(
    RecordCases, EdgeCases, EntryCases, QueueCases, ScanCases, TransactionCases, TreeCases
):
    """The contract of `Store`; `opened` is to be defined."""
