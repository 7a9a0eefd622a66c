"""A bug of the zoo: one safeguard, where it lives, and what the code is like without it.

Production code carries no switches. A bug names a place, a function or method of the system, and
makes from the original what runs there instead while the bug is applied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

from kept.sim.mix import Mix

PACKAGE: Final = "kept"
# From what is there, `staticmethod` and `property` taken off, to what is put there.
Switch: TypeAlias = Callable[[Any], Any]


class Walk(NamedTuple):
    """A world of the explorer, and how many moves deep it is walked; None: to its end."""

    world: str
    depth: int | None = None


class Bug(NamedTuple):
    """A safeguard that can be switched off.

    `off` says in a sentence what is so then. `place` is `module:name` or `module:Class.name`.
    `simulated` and `walks` say what may find it. A seed whose mix has none of `faults`, or that
    `fits` refuses, cannot, and need not be played.
    """

    name: str
    off: str
    place: str
    switch: Switch
    simulated: bool
    walks: tuple[Walk, ...]
    faults: tuple[str, ...]
    fits: Callable[[Mix], bool] | None
    # Why nothing finds it, where that is known.
    unfound: str

    @property
    def floor(self) -> str:
        """The floor of the house that it belongs to."""
        return self.place.split(":")[0].split(".")[1]

    def may_show(self, mix: Mix) -> bool:
        """Whether a seed with this mix can find it."""
        if self.faults and not any(fault in mix.faults for fault in self.faults):
            return False
        return self.fits is None or self.fits(mix)


class Menagerie:
    """The bugs of one file, in order."""

    def __init__(self) -> None:
        self.bugs: list[Bug] = []

    def bug(
        self,
        name: str,
        off: str,
        place: str,
        *,
        simulated: bool = True,
        walks: tuple[Walk, ...] = (),
        faults: tuple[str, ...] = (),
        fits: Callable[[Mix], bool] | None = None,
        unfound: str = "",
    ) -> Callable[[Switch], Switch]:
        """Adds a bug; the decorated function is its switch."""

        def add(switch: Switch) -> Switch:
            self.bugs.append(Bug(name, off, place, switch, simulated, walks, faults, fits, unfound))
            return switch

        return add


class Site(NamedTuple):
    """Where a place is: the module or class, and the attribute in it."""

    owner: Any
    attribute: str

    @property
    def raw(self) -> Any:
        """What stands there, as the owner's dictionary has it."""
        return vars(self.owner)[self.attribute]


def site_of(place: str) -> Site:
    """The site that a place names. Raises `LookupError` where there is none."""
    module_name, _, path = place.partition(":")
    *outer, attribute = path.split(".")
    owner: Any = import_module(module_name)
    for name in outer:
        owner = vars(owner)[name]
    site = Site(owner, attribute)
    site.raw  # noqa: B018 - raises KeyError where there is no such attribute
    return site


@contextmanager
def applied(bug: Bug) -> Iterator[None]:
    """The system has the bug inside, in this process, wherever the place is known by name."""
    site = site_of(bug.place)
    undo: list[Callable[[], None]] = []
    try:
        _replace(site.owner, site.attribute, bug.switch, undo)
        yield
    finally:
        for take_back in reversed(undo):
            take_back()


def _replace(owner: Any, attribute: str, switch: Switch, undo: list[Callable[[], None]]) -> None:
    raw = vars(owner)[attribute]
    if isinstance(raw, staticmethod):
        _put(owner, attribute, staticmethod(switch(raw.__func__)), undo)
    elif isinstance(raw, property):
        _put(owner, attribute, property(switch(raw.fget)), undo)
    elif not isinstance(owner, ModuleType):
        _put(owner, attribute, switch(raw), undo)
    else:
        replacement = switch(raw)
        for module in _modules():
            for name, value in list(vars(module).items()):
                if value is raw:
                    _put(module, name, replacement, undo)
                elif type(value) is dict and not name.startswith("__"):
                    _put_in_table(value, raw, replacement, undo)


def _modules() -> list[ModuleType]:
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] == PACKAGE and not name.startswith(f"{PACKAGE}.sim.zoo")
    ]


def _put(owner: Any, attribute: str, value: Any, undo: list[Callable[[], None]]) -> None:
    before = vars(owner)[attribute]
    undo.append(lambda: setattr(owner, attribute, before))
    setattr(owner, attribute, value)


def _put_in_table(
    table: dict[Any, Any], raw: Any, replacement: Any, undo: list[Callable[[], None]]
) -> None:
    """A function may stand in a table of handlers, alone or in a tuple."""
    for key, value in list(table.items()):
        put = value
        if value is raw:
            put = replacement
        elif type(value) is tuple and any(each is raw for each in value):
            put = tuple(replacement if each is raw else each for each in value)
        if put is not value:
            table[key] = put
            undo.append(lambda key=key, value=value: table.__setitem__(key, value))  # type: ignore[misc]
