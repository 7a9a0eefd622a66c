"""Runs a server over a store until it is told to stop (Ctrl-C or SIGTERM).

kept serve
kept serve --store sqlite:////var/lib/kept/kept.db --host 0.0.0.0 --auth-public-key key.pem
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from kept.cli.durations import duration
from kept.cli.failure import EXIT_REFUSED, UsageError, complain
from kept.protocol.limits import DEFAULT_RETENTION_MS, MIN_RETENTION_MS
from kept.server.auth import AuthOptions
from kept.server.limits import Limits
from kept.server.serve import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_STORE_URL,
    ServerOptions,
    run_server,
)
from kept.transports.reach import Network, networks_of
from kept.transports.webhooks import (
    NETWORKS_VARIABLE,
    PRIVATE_VARIABLE,
    SECRET_VARIABLE,
    WebhookOptions,
    secrets_of,
    webhook_options,
)

_MAX_PORT: Final = 65_535
_DEFAULTS: Final = Limits()


def add_arguments(parser: argparse.ArgumentParser, _everywhere: argparse.ArgumentParser) -> None:
    """The options of `kept serve`; each default may come from the environment (KEPT_…)."""
    parser.add_argument(
        "--host",
        default=os.environ.get("KEPT_HOST", DEFAULT_HOST),
        help=f"the address to listen on (KEPT_HOST; {DEFAULT_HOST}, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=os.environ.get("KEPT_PORT", str(DEFAULT_PORT)),
        help=f"the port, 0 for any that is free (KEPT_PORT; {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--store",
        default=os.environ.get("KEPT_STORE", DEFAULT_STORE_URL),
        metavar="URL",
        help=f"memory:// or sqlite:///FILE (KEPT_STORE; {DEFAULT_STORE_URL})",
    )
    parser.add_argument(
        "--server-url", metavar="URL", help="what workers that get pushed messages answer to"
    )
    parser.add_argument(
        "--retention",
        type=_retention,
        default=DEFAULT_RETENTION_MS,
        metavar="DURATION",
        help="how long settled work stays whose queue says nothing; none: for ever (7d)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="allow debug requests: tests only, they can erase all"
    )
    _add_auth(parser.add_argument_group("authentication (none, unless a key is given)"))
    _add_webhooks(parser.add_argument_group("webhooks and pushed work"))
    _add_limits(parser.add_argument_group("limits"))
    parser.set_defaults(run=_serve)


def _add_auth(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--auth-public-key", type=Path, metavar="FILE", help="a PEM public key")
    group.add_argument("--auth-jwks", type=Path, metavar="FILE", help="a set of public keys")
    group.add_argument(
        "--auth-secret-file",
        type=Path,
        metavar="FILE",
        help="an HS256 secret (or the secret itself in KEPT_AUTH_SECRET)",
    )


def _add_webhooks(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--webhook-secret-file",
        type=Path,
        metavar="FILE",
        help=f"what messages are signed with, or two while it is replaced ({SECRET_VARIABLE})",
    )
    group.add_argument(
        "--allow-private-webhooks",
        action="store_true",
        help=f"webhooks may go to loopback and private addresses ({PRIVATE_VARIABLE}=1)",
    )
    group.add_argument(
        "--allow-webhooks-to",
        type=_networks,
        action="extend",
        default=[],
        metavar="NETWORK",
        help=f"they may go there, such as 10.1.0.0/16; may be repeated ({NETWORKS_VARIABLE})",
    )
    group.add_argument(
        "--no-private-workers",
        action="store_true",
        help="work is not pushed to loopback and private addresses either",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for option, type_, default, text in (
        ("--max-connections", _positive, _DEFAULTS.connections, "open connections"),
        ("--max-requests", _positive, _DEFAULTS.concurrent_requests, "requests at one time"),
        ("--max-body", _positive, _DEFAULTS.body_bytes, "bytes of one body"),
        ("--max-bodies", _positive, _DEFAULTS.body_bytes_in_flight, "bytes of all bodies"),
        ("--head-timeout", duration, _DEFAULTS.head_timeout, "for a request's head"),
        ("--body-timeout", duration, _DEFAULTS.body_timeout, "for a request's body"),
        ("--idle-timeout", duration, _DEFAULTS.idle_timeout, "for a connection without requests"),
        ("--write-timeout", duration, _DEFAULTS.write_timeout, "for a client that does not read"),
        ("--grace", duration, _DEFAULTS.grace, "to finish what is in flight when stopping"),
    ):
        is_time = type_ is duration
        group.add_argument(
            option,
            type=type_,
            metavar="DURATION" if is_time else "N",
            default=round(default * 1_000) if is_time else default,
            help=f"{text} ({default:g}s)" if is_time else f"{text} ({default:,})",
        )


def _serve(arguments: argparse.Namespace) -> int:
    options = server_options(arguments)
    try:
        return run_server(options)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        complain(f"cannot listen on {options.host}:{options.port}: {reason}; choose another --port")
        return EXIT_REFUSED


def server_options(arguments: argparse.Namespace) -> ServerOptions:
    """What the command line chose. Raises `UsageError` for a secret that cannot be read."""
    return ServerOptions(
        host=arguments.host,
        port=arguments.port,
        store_url=arguments.store,
        debug=arguments.debug,
        server_url=arguments.server_url,
        retention_ms=arguments.retention,
        auth=AuthOptions(
            public_key_file=arguments.auth_public_key,
            jwks_file=arguments.auth_jwks,
            secret=_secret(arguments.auth_secret_file),
        ),
        webhooks=_webhooks(arguments),
        limits=Limits(
            connections=arguments.max_connections,
            concurrent_requests=arguments.max_requests,
            body_bytes=arguments.max_body,
            body_bytes_in_flight=arguments.max_bodies,
            head_timeout=arguments.head_timeout / 1_000,
            body_timeout=arguments.body_timeout / 1_000,
            idle_timeout=max(1, arguments.idle_timeout // 1_000),
            write_timeout=arguments.write_timeout / 1_000,
            grace=arguments.grace / 1_000,
        ),
    )


def _webhooks(arguments: argparse.Namespace) -> WebhookOptions:
    said = webhook_options(os.environ)
    path: Path | None = arguments.webhook_secret_file
    return WebhookOptions(
        secrets=said.secrets if path is None else secrets_of(_read(path)),
        private=said.private or arguments.allow_private_webhooks,
        networks=(*said.networks, *arguments.allow_webhooks_to),
        private_workers=not arguments.no_private_workers,
    )


def _secret(path: Path | None) -> str | None:
    # Never an argument: every user of a machine can read the command lines on it.
    if path is None:
        return os.environ.get("KEPT_AUTH_SECRET")
    return _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the secret in {path}: {error}") from error


def _retention(text: str) -> int | None:
    if text == "none":
        return None
    length = duration(text)
    if length < MIN_RETENTION_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is shorter than a second")
    return length


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to {_MAX_PORT}")
    return int(text)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return networks_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
