"""Floor 2: what happens.

1. Everything that decides a transition is here.
2. Nothing here knows who asked or where records live.

Handlers are pure functions over a working set of loaded records: no I/O, no clock, no randomness.
Start at `dispatch.py` (how a request is applied), then `effects.py` (the few moves that all
handlers are made of), then `promises.py` and `tasks.py` beside the protocol's table A4.
"""
