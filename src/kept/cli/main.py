"""The `kept` command: finds the noun, runs it, and turns what happened into an exit code.

A noun's module is imported only when it is asked for, so that `kept --help` costs next to nothing.
Exit codes: 0 done, 1 the engine said no, 2 wrong usage, 3 nothing could be reached, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from kept.cli.failure import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    UsageError,
    complain,
    explain,
)
from kept.errors import KeptError

DEFAULT_URL: Final = "http://127.0.0.1:8420"

NOUNS: Final = {
    "serve": "run a server",
    "worker": "run an app's functions: kept worker module:app; or list workers",
    "enqueue": "start a function by its name: kept enqueue NAME PARAMETER=VALUE …",
    "promise": "get, create, resolve, reject, cancel, search promises",
    "task": "get, search, halt, continue tasks",
    "queue": "settings and numbers of queues: limits, pause, resume, stats",
    "schedule": "put, get, list, pause, trigger, delete schedules",
    "cancel": "ask work to stop, or stop it, with what it started",
    "dead": "list, show, replay, purge, export dead letters: work that was given up on",
    "function": "list, show functions that workers announce, and who runs them",
    "signal": "send a message to running work: kept signal ID NAME",
    "once": "list, show what was done once for a key; run a command once: kept once run",
    "lock": "list, show, release locks; run a command under one: kept lock run NAME -- COMMAND …",
    "slot": "show, release slots; run a command under one",
    "bucket": "take tokens of a bucket: a share of a rate",
    "guard": "list, show, forget the revisions of entities",
    "outbox": "relay, show the outbox in a database of yours",
    "explain": "say why work does not run, or what it is doing",
    "tree": "show the call tree of a promise",
    "check": "explore small worlds: all interleavings of the machine and its workers",
    "sim": "run the real system in a simulated world, from one seed, with faults",
    "history": "check a recorded history, and draw it",
    "version": "print the version",
}

# These connect to nothing by --url, and print no records.
WITHOUT_CONNECTION: Final = frozenset({"serve", "worker", "check"})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: this process's) and returns its exit code."""
    _accept_any_text()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader had enough (`kept … | head`). What is still buffered must not fail at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        # Mostly of the output, such as a full disk: what nouns read and reach explains itself.
        complain(f"reading or writing failed: {error}")
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    except (KeptError, UsageError) as error:
        text, code = explain(error)
        complain(text)
        return code


def _dispatch(argv: list[str]) -> int:
    parser = _main_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        arguments.noun = "version"
    if arguments.noun is None:
        parser.print_help()
        return EXIT_OK
    # `kept worker` takes an app; what it takes beside that is a module of its own.
    is_listing = arguments.noun == "worker" and arguments.rest[:1] == ["list"]
    name = "workers" if is_listing else arguments.noun
    module = importlib.import_module(f"kept.cli.{name}")
    everywhere = global_options(defaults=False)
    noun_parser = argparse.ArgumentParser(
        prog=f"kept {arguments.noun}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[] if name in WITHOUT_CONNECTION else [everywhere],
        allow_abbrev=False,
    )
    module.add_arguments(noun_parser, everywhere)
    arguments = noun_parser.parse_args(arguments.rest, arguments)
    code: int = arguments.run(arguments)
    return code


def _main_parser() -> argparse.ArgumentParser:
    nouns = "\n".join(f"  {noun:<10} {text}" for noun, text in NOUNS.items())
    parser = argparse.ArgumentParser(
        prog="kept",
        usage="kept [options] NOUN …",
        description="Durable execution and job queues for Python.",
        epilog=f"nouns:\n{nouns}\n\n`kept NOUN --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[global_options(defaults=True)],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "noun", nargs="?", choices=list(NOUNS), metavar="NOUN", help="one of those below"
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def global_options(*, defaults: bool) -> argparse.ArgumentParser:
    """The options that may stand before and after the noun; only the first place sets defaults."""

    def default(value: object) -> object:
        return value if defaults else argparse.SUPPRESS

    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--url",
        default=default(os.environ.get("KEPT_URL") or DEFAULT_URL),
        help=f"the server, or a store such as sqlite:///kept.db (KEPT_URL; default {DEFAULT_URL})",
    )
    group.add_argument(
        "--token",
        default=default(os.environ.get("KEPT_TOKEN") or None),
        help="the bearer token for the server (KEPT_TOKEN)",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=default(False),
        help="print JSON: one document, or one a line for lists",
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=default(False),
        help="print ids for lists, and nothing else but errors",
    )
    return parser


def _accept_any_text() -> None:
    """Records may hold what the terminal's encoding cannot show; that must not end a listing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
