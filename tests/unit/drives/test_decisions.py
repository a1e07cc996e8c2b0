"""An operator's decision reaches the store only if the store asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.control.disks.assembly import Assembly, AssemblyMember
from appliance.control.disks.decisions import decide
from appliance.control.disks.passport import Membership
from appliance.core.decisions import MEANINGS, Choice
from appliance.core.errors import InvalidInput, Refused, Unavailable
from appliance.engine.interface import Health, MemberHealth, MirrorState, Question
from tests.unit.drives.house import House, mirrored, play

ASSEMBLY = Assembly(
    "m0",
    "ab" * 16,
    tuple(AssemblyMember(each, Path("/"), each.upper(), 1) for each in ("da", "db")),
    Membership("ab" * 16, "m0", (("da", "DA"), ("db", "DB"))),
)


class Store:
    """Asks one question until it is answered."""

    def __init__(self, health: Health | None) -> None:
        self.health = health
        self.told: list[Mapping[str, object]] = []

    async def health_of(self, name: str) -> Health | None:
        return self.health

    async def override(self, name: str, message: Mapping[str, object]) -> None:
        self.told.append(message)
        assert self.health is not None
        self.health = replace(self.health, question=Question.NONE)

    def decide(self, choice: Choice, identity: str = "") -> None:
        asyncio.run(
            decide(ASSEMBLY, choice, identity, health_of=self.health_of, override=self.override)
        )


def asking(question: Question, state: MirrorState = MirrorState.OFFLINE) -> Store:
    choices = {"da": "", "db": ""} if question is Question.CHOOSE else {}
    return Store(Health(state, question=question, choices=choices))


@pytest.mark.parametrize("choice", list(Choice))
@pytest.mark.parametrize("question", list(Question))
def test_only_what_is_asked_is_answered(choice: Choice, question: Question) -> None:
    store = asking(question)
    if MEANINGS[choice].question == question.value:
        store.decide(choice, "DB")
        (told,) = store.told
        truths = {name for name, value in told.items() if value}
        assert (
            truths
            == {
                Choice.KEEP: {"chosen"},
                Choice.FORCE: {"forced"},
                Choice.ACCEPT_LOSSES: {"accept_losses"},
                Choice.RESUME: {"resume"},
            }[choice]
        )
        assert told["chosen"] == ("db" if choice is Choice.KEEP else None)
        return
    waits = "it waits for" if question is not Question.NONE else "not open and asks for nothing yet"
    with pytest.raises(Refused, match=waits):
        store.decide(choice, "DB")
    assert store.told == []


def test_an_open_mirror_that_asks_nothing_says_so() -> None:
    store = asking(Question.NONE, MirrorState.IN_SYNC)
    with pytest.raises(Refused, match="it waits for no decision"):
        store.decide(Choice.FORCE)


def test_drives_that_contradict_each_other_are_settled_by_the_same_choice() -> None:
    store = asking(Question.CHOOSE, MirrorState.READ_ONLY)
    store.decide(Choice.KEEP, "da")
    (told,) = store.told
    assert (told["chosen"], told["accept_losses"]) == ("da", True)


@pytest.mark.parametrize("identity", ["", "dc", "S9"])
def test_only_a_drive_of_the_choice_can_be_kept(identity: str) -> None:
    store = asking(Question.CHOOSE)
    with pytest.raises(InvalidInput, match="da, db"):
        store.decide(Choice.KEEP, identity)
    assert store.told == []


def test_a_store_that_does_not_answer_is_told_nothing() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        Store(None).decide(Choice.FORCE)


def test_a_drive_its_mirror_decided_against_can_be_claimed_with_its_serial(tmp_path: Path) -> None:
    """And only once the store says so: a store that does not answer has not decided."""

    async def scenario(house: House) -> None:
        await mirrored(house)
        victim = house.disks.assembly("m0").members[1]
        with pytest.raises(Refused, match="would lose a copy"):
            await house.disks.claim("B", force_serial="B")
        house.health = Health(
            MirrorState.DEGRADED, members=[MemberHealth(victim.drive, False, True, detached=True)]
        )
        with pytest.raises(Refused, match="force"):
            await house.disks.claim("B")
        await house.disks.claim("B", force_serial="B")

    play(tmp_path, scenario)
