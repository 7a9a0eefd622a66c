"""What is printed: JSON for programs, tables and colour on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from kept.cli.durations import relative
from kept.protocol.codec import encode_json
from kept.protocol.spoken import timestamp

Row = Sequence[str]

_COLOURS: Final = {
    "pending": "33",
    "acquired": "36",
    "suspended": "34",
    "halted": "35",
    "resolved": "32",
    "fulfilled": "32",
    "rejected": "31",
    "rejected_canceled": "31",
    "rejected_timedout": "31",
}
_BOLD: Final = "1"
_DIM: Final = "2"


def clean(text: str) -> str:
    """Text without control characters: a record must not be able to steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Output:
    """Prints results in the form that was asked for. `now_ms` is what ages are told from."""

    def __init__(
        self, now_ms: int, *, json: bool, quiet: bool, stream: TextIO | None = None
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.now_ms = now_ms
        self._stream = stream or sys.stdout
        self.terminal = self._stream.isatty()
        self._colour = (
            self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self.boxes = (self._stream.encoding or "").lower().replace("-", "").startswith("utf")

    def line(self, text: str) -> None:
        """One line of text, as it is."""
        self._stream.write(text + "\n")

    def document(self, value: Any) -> None:
        """One JSON document, on one line."""
        self.line(encode_json(value).decode())

    def note(self, text: str) -> None:
        """Something beside the result, for people: on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def instant(self, instant_ms: int | None) -> str:
        """An instant: relative on a terminal, exact elsewhere."""
        if instant_ms is None:
            return ""
        return relative(instant_ms, self.now_ms) if self.terminal else timestamp(instant_ms)

    def exact(self, instant_ms: int | None) -> str:
        """An instant, exact, and on a terminal how far away it is."""
        if instant_ms is None:
            return ""
        text = timestamp(instant_ms)
        if self.terminal and text != "never":
            text += f" ({relative(instant_ms, self.now_ms)})"
        return text

    def paint(self, text: str, state: str | None = None) -> str:
        """Text in the colour of `state` (by default its own), on a terminal."""
        return self._styled(text, _COLOURS.get(state or text.strip(), ""))

    def dim(self, text: str) -> str:
        """Text that matters less."""
        return self._styled(text, _DIM)

    def _styled(self, text: str, style: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour and style else text

    def details(self, pairs: Sequence[tuple[str, str]]) -> None:
        """One record, a field a line; empty fields are left out."""
        shown = [(name, text) for name, text in pairs if text]
        width = max((len(name) for name, _ in shown), default=0)
        for name, text in shown:
            self.line(f"{self.dim(name.ljust(width))}  {self.paint(clean(text))}")

    def rows(self, header: Row, rows: Sequence[Row]) -> None:
        """A list: a table on a terminal, elsewhere fields between tabs without a header."""
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if not self.terminal:
            for row in cleaned:
                self.line("\t".join(row))
            return
        widths = [
            max(len(cell) for cell in column) for column in zip(header, *cleaned, strict=True)
        ]
        titles = "  ".join(t.ljust(w) for t, w in zip(header, widths, strict=True))
        self.line(self._styled(titles.rstrip(), _BOLD))
        for row in cleaned:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.line("  ".join(self.paint(cell) for cell in padded).rstrip())
