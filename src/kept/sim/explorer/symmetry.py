"""Symmetry: states that differ only in who is who are one state.

Workers run the same programs, and some promises can change places. Each state stands for all that
come from it by renaming; of those keys the least one is the state's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

from kept.sim.explorer.moves import Moves, Situation
from kept.sim.explorer.programs import Call, Record


class Symmetry:
    """One renaming: worker `i` becomes `order[i]`, promises get the names of `ids`."""

    def __init__(self, moves: Moves, order: tuple[int, ...], ids: Mapping[str, str]) -> None:
        self._moves = moves
        self._order = order
        self._ids = ids
        self._places = [order.index(place) for place in range(len(order))]
        pids = {f"w{worker + 1}": f"w{place + 1}" for worker, place in enumerate(order)}
        self._names = {**pids, **ids}
        self._databases: dict[int, int] = {}
        self._locals: dict[int, int] = {}
        self._done: dict[int, int] = {}

    def apply(self, s: Situation) -> Situation:
        """The state after the renaming."""
        database = self._databases.get(s.database)
        if database is None:
            database = self._moves.databases.renamed(s.database, self._names)
            self._databases[s.database] = database
        workers, flights, done = s.workers, s.flights, s.done
        workers = tuple(self._local(workers[worker]) for worker in self._places)
        if flights:
            flights = tuple(
                sorted((slot, self._order[w], self._local(number)) for slot, w, number in flights)
            )
        if self._ids:
            done = self._renamed_done(done)
        return Situation(database, workers, flights, done, s.crashes, s.hangs, s.losses)

    def _local(self, number: int) -> int:
        if not self._ids:
            return number
        found = self._locals.get(number)
        if found is None:
            local = self._moves.local(number)
            known = tuple(sorted(self._ids.get(id, id) for id in local.known))
            task = self._ids.get(local.task, local.task)
            found = self._moves.number(local._replace(task=task, known=known))
            self._locals[number] = found
        return found

    def _renamed_done(self, done: int) -> int:
        found = self._done.get(done)
        if found is None:
            found = 0
            client = self._moves.world.client
            places = {(type(each), each.id): index for index, each in enumerate(client)}
            for index, each in enumerate(client):
                if done & (1 << index):
                    found |= 1 << places[type(each), self._ids.get(each.id, each.id)]
            self._done[done] = found
        return found


def symmetries(moves: Moves) -> list[Symmetry]:
    """All renamings of a world but the one that changes nothing."""
    world = moves.world
    same = tuple(range(world.workers))
    names = world.interchangeable
    # A program that creates one after the other tells them apart, and so do its zombies.
    told_apart = {
        operation.child.id
        for program in world.programs.values()
        for operation in program
        if isinstance(operation, Record | Call)
    }
    assert told_apart.isdisjoint(names), f"{names} cannot change places"
    found = []
    for order in permutations(same):
        for places in permutations(names):
            ids = {id: to for id, to in zip(names, places, strict=True) if id != to}
            if order != same or ids:
                found.append(Symmetry(moves, order, ids))
    return found
