"""Floor 1: what is said. Records, requests, responses, addresses, limits, validation, codec.

Everything here is synchronous, deterministic and total: no clock, no I/O, no randomness.
"""
