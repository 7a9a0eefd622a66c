"""One word for one thing: what is not said in this project, and what is said instead."""

from __future__ import annotations

# A file that may hold anything ends up holding everything.
NAMELESS_FILES = {
    "common",
    "helper",
    "helpers",
    "misc",
    "shared",
    "stuff",
    "tools",
    "util",
    "utils",
}

# Synonyms: a reader who meets two words looks for two things.
SYNONYMS = {
    "activity": "step",
    "back_off": "backoff",
    "deadletter": "dead_letter",
    "dlq": "dead_letter",
    "fencing_token": "fence",
    "heart_beat": "heartbeat",
    "job_queue": "queue",
    "keepalive": "keep_alive",
    "lease_token": "fence",
    "mutex": "lock",
    "orchestration": "workflow",
    "poison": "dead_letter",
    "promise_uuid": "promise_id",
    "reservation": "lease",
    "task_queue": "queue",
    "task_uuid": "task_id",
    "time_out": "timeout",
    "time_stamp": "timestamp",
    "topic": "queue",
    "visibility_timeout": "lease",
    "wakeup": "wake_up",
    "work_queue": "queue",
}

# Names that an interface we implement, and did not write, dictates: "file: identifier".
DICTATED = {
    "src/kept/server/http_protocol.py: msg",  # uvicorn's HttpToolsProtocol.send_400_response
}

# Abbreviations that a newcomer must look up. ctx, ttl, pid, id and kwargs are the field's own.
ABBREVIATIONS = {
    "addr": "address",
    "buf": "buffer",
    "cb": "callback",
    "cfg": "configuration",
    "cnt": "count",
    "conn": "connection",
    "elem": "element",
    "err": "error",
    "evt": "event",
    "fn": "function",
    "idx": "index",
    "impl": "implementation",
    "mgr": "manager",
    "msg": "message",
    "pkg": "package",
    "proc": "process",
    "prom": "promise",
    "ptr": "pointer",
    "qty": "quantity",
    "req": "request",
    "resp": "response",
    "ret": "result",
    "sched": "schedule",
    "srv": "server",
    "stmt": "statement",
    "svc": "service",
    "ts": "timestamp",
    "txn": "transaction",
    "val": "value",
    "wf": "workflow",
}
