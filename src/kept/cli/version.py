"""Prints the version of kept, of the protocol and of Python."""

from __future__ import annotations

import argparse
import json
import platform

from kept import __version__
from kept.cli.failure import EXIT_OK
from kept.protocol.limits import PROTOCOL_VERSION


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """`kept version` has no verbs."""
    parser.set_defaults(run=_version)


def _version(arguments: argparse.Namespace) -> int:
    python = platform.python_version()
    if arguments.json:
        versions = {"kept": __version__, "protocol": PROTOCOL_VERSION, "python": python}
        print(json.dumps(versions))
    else:
        print(f"kept {__version__} (protocol {PROTOCOL_VERSION}, Python {python})")
    return EXIT_OK
