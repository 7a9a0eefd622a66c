"""The store for tests and simulation: everything in this process's memory."""

from kept.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
