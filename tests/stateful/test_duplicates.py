"""Keys of creates against a model that keeps nothing but who came when (protocol B4)."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from kept.protocol.records import PromiseState, Value
from kept.protocol.requests import PromiseCreate, PromiseSettle, Request, TaskRelease
from kept.protocol.responses import PromiseResult, Response
from tests.unit.machine.world import World, create

FOREVER: Final = 10**12


class Birth(NamedTuple):
    """A promise of the model: its tags, its data, when it came, and its deadline."""

    id: str
    tags: dict[str, str]
    data: str
    born_at: int
    deadline: int


class Naive:
    """Everything that was ever created, looked through from its beginning for each create."""

    def __init__(self) -> None:
        self.births: list[Birth] = []
        self.ended: dict[str, int] = {}
        # The bursts of debounce keys: when each began, its latest instant, and who waits for it now.
        self.bursts: dict[str, tuple[int, int, Birth]] = {}
        self.due: dict[str, int] = {}
        self.started: set[str] = set()

    def is_live(self, birth: Birth, now: int) -> bool:
        return self.ended.get(birth.id, FOREVER) > now and birth.deadline > now

    def create(self, birth: Birth) -> str:
        """The id that the create is answered with, or "conflict"."""
        now, tags = birth.born_at, birth.tags
        if any(each.id == birth.id for each in self.births):
            return birth.id
        for each in self.births:
            if "dedupe" in tags and each.tags.get("dedupe") == tags["dedupe"]:
                window_end = each.born_at + int(each.tags.get("dedupe_window", 0))
                if self.is_live(each, now) or window_end > now:
                    ignores = tags.get("dedupe_mismatch") == "ignore"
                    return each.id if ignores or each.data == birth.data else "conflict"
        replaced = []
        delay = int(tags.get("delay", 0))
        first, latest = now, now + int(tags["debounce_max"]) if "debounce_max" in tags else FOREVER
        if "debounce" in tags and tags["debounce"] in self.bursts:
            began, promised, holder = self.bursts[tags["debounce"]]
            if self.is_live(holder, now) and holder.id not in self.started:
                first = began
                latest = min(promised, began + int(tags.get("debounce_max", FOREVER)))
                if tags.get("debounce_mode") != "replace":
                    self.bursts[tags["debounce"]] = first, latest, holder
                    put_off = min(delay, latest, holder.deadline - 1)
                    if put_off > max(now, self.due[holder.id]):
                        self.due[holder.id] = put_off
                    return holder.id
                replaced = [holder]
        for each in self.births:
            is_of_key = "singleton" in tags and "singleton" in each.tags
            if is_of_key and each not in replaced and self.is_live(each, now):
                if tags["singleton"] != "replace":
                    return each.id if tags["singleton"] == "return" else "conflict"
                replaced.append(each)
        self.ended.update({each.id: now for each in replaced})
        self.births.append(birth)
        self.due[birth.id] = max(now, min(delay, latest))
        if "debounce" in tags:
            self.bursts[tags["debounce"]] = first, latest, birth
        return birth.id


class Act(NamedTuple):
    """One thing that happens, so many ms after the last; `again` is the place of an older promise
    that it names, if it does."""

    after: int
    again: int | None
    tags: dict[str, str] | None
    data: str
    delay: int
    span: int


def acts(random: Random) -> list[Act]:
    """Dense in what matters: few keys, new ids mostly, instants that coincide."""
    return [
        Act(
            after=random.choice([0, 5, 10, 20]),
            again=random.choice([None, None, None, random.randrange(4)]),
            tags=_tags(random) if random.random() < 0.75 else None,
            data=random.choice("xxxy"),
            delay=random.choice([0, 10, 30, 60]),
            span=random.choice([100, 10_000]),
        )
        for _ in range(30)
    ]


def _tags(random: Random) -> dict[str, str]:
    def some(**choices: str) -> dict[str, str]:
        """Each of these with one of its values, or without."""
        drawn = {name: random.choice(values.split()) for name, values in choices.items()}
        return {name: text for name, text in drawn.items() if text != "-"}

    tags: dict[str, str] = {}
    if random.random() < 0.4:
        more = some(dedupe_window="- 5 20 40", dedupe_mismatch="- - ignore refuse")
        tags |= {"dedupe": random.choice("kl"), **more}
    if random.random() < 0.4:
        more = some(debounce_max="- 20 40 80", debounce_mode="- replace postpone")
        tags |= {"debounce": random.choice("kl"), **more}
    if random.random() < 0.3:
        tags |= some(singleton="skip return replace", singleton_key="s")
    return tags


def seen(response: Response) -> str:
    if response.status == 409:
        return "conflict"
    assert isinstance(response.data, PromiseResult), response
    return response.data.promise.id


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_creates_under_keys_are_answered_as_by_the_model(
    seed: int,
) -> None:
    """Whatever came before, and whether or not the background looks at what is due."""
    world, naive, random = World(), Naive(), Random(seed)
    fires_in_between = random.random() < 0.5
    for number, act in enumerate(acts(random)):
        world.pass_time(act.after)
        if fires_in_between:
            world.settle_down()
        now = world.now
        if act.tags is None:
            if act.data == "y":
                claimed = [lease.task.id for lease in world.claim("q", limit=1, ttl=10**9)]
                naive.started.update(claimed)
                if claimed and act.again is None:
                    # Pending again, and not to be put off any more.
                    world.ask(TaskRelease(claimed[0], world.task(claimed[0]).version))
            elif naive.births:
                id = naive.births[-1 - (act.again or 0) % len(naive.births)].id
                world.ask(PromiseSettle(id, PromiseState.RESOLVED))
                naive.ended.setdefault(id, now)
            continue
        birth, asked = _asked(act, f"p{number}" if act.again is None else f"p{act.again}", now)
        assert seen(world.ask(asked)) == naive.create(birth)
        for each in naive.births:
            assert world.promise(each.id).promise.state == "pending" or not (
                naive.is_live(each, now)
            )
            if naive.is_live(each, now) and each.id not in naive.started:
                assert world.task(each.id).retry_at == naive.due[each.id]


def _asked(act: Act, id: str, now: int) -> tuple[Birth, Request]:
    given_tags = dict(act.tags or {})
    deadline = now + act.span
    if act.delay and act.delay < act.span:
        given_tags["delay"] = str(now + act.delay)
    request: PromiseCreate = create(
        id, timeout_at=deadline, param=Value(data=act.data), queue="q", **given_tags
    )
    return Birth(request.id, given_tags, act.data, now, deadline), request
