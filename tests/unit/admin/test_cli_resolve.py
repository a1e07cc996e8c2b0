"""``appliance mirror resolve``: nothing happens before the consequence was shown and confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest

from appliance.core.admin import DriveChoice
from appliance.core.decisions import MEANINGS, Choice, choice_for
from appliance.engine.interface import Question
from tests.unit.admin.fakes import MIRROR, FakeManagers
from tests.unit.admin.serving import served
from tests.unit.admin.test_cli import Shell

CHOICES = (DriveChoice("d1", "S1", "epoch 4, alone"), DriveChoice("d2", "S2", "epoch 5, alone"))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    fake = FakeManagers()
    path = tmp_path / "admin.sock"
    with served(fake, path):
        yield Shell(path, fake)


def asking(shell: Shell, question: Question) -> None:
    lost = ("p/gone", "p/older (its deletion)") if question is Question.LOSSES else ()
    choices = CHOICES if question is Question.CHOOSE else ()
    shell.fake.mirrors = [
        replace(
            MIRROR,
            state="offline",
            reason="something happened",
            question=question.value,
            choices=choices,
            lost=lost,
            lost_more=7 if lost else 0,
        )
    ]


def test_every_question_of_the_engine_has_one_answer() -> None:
    asked = {question for question in Question if question is not Question.NONE}
    assert {meaning.question for meaning in MEANINGS.values()} == {q.value for q in asked}
    assert set(MEANINGS) == set(Choice)
    assert choice_for(Question.NONE.value) is None


@pytest.mark.parametrize("choice", list(Choice))
def test_what_is_asked_is_told_with_what_each_choice_means(shell: Shell, choice: Choice) -> None:
    meaning = MEANINGS[choice]
    asking(shell, Question(meaning.question))
    assert shell.type("mirror", "status") == 0
    assert "waits for you: appliance mirror resolve m0" in shell.out
    assert shell.type("mirror", "resolve", "m0") == 0
    told = " ".join(shell.out.split())
    assert meaning.consequence in told
    assert f"Next: appliance mirror resolve m0 {meaning.option}" in told
    if choice is Choice.KEEP:
        assert "drive d2 (S2): epoch 5, alone" in told
    if choice is Choice.ACCEPT_LOSSES:
        assert "lost: p/older (its deletion)" in told
        assert "and 7 more" in told
    assert shell.fake.resolved == []
    document = shell.json("mirror", "resolve", "m0")
    assert document["question"] == meaning.question


def test_nothing_to_decide(shell: Shell) -> None:
    assert shell.type("mirror", "resolve", "m0") == 0
    assert "Nothing is to be decided." in shell.out


def test_a_mirror_that_is_not_open_yet_may_still_ask(shell: Shell) -> None:
    asking(shell, Question.NONE)
    assert shell.type("mirror", "resolve", "m0") == 0
    assert "Nothing is to be decided yet: the mirror is not open." in shell.out


def test_a_choice_takes_the_mirrors_name(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asking(shell, Question.FORCE)
    asked: list[str] = []

    def prompt(text: str, **options: object) -> str:
        asked.append(text)
        return typed

    monkeypatch.setattr(click, "prompt", prompt)
    typed = "yes"
    assert shell.type("mirror", "resolve", "m0", "--force") != 0
    assert "nothing was done" in shell.err
    assert MEANINGS[Choice.FORCE].consequence[:40] in shell.out
    typed = "m0"
    assert shell.type("mirror", "resolve", "m0", "--force") == 0
    assert len(asked) == 2
    assert shell.fake.resolved == [("m0", Choice.FORCE, "")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--keep", "S1"), ("m0", Choice.KEEP, "S1")),
        (("--force",), ("m0", Choice.FORCE, "")),
        (("--accept-losses",), ("m0", Choice.ACCEPT_LOSSES, "")),
        (("--resume",), ("m0", Choice.RESUME, "")),
    ],
)
def test_programs_confirm_by_name(
    shell: Shell, arguments: tuple[str, ...], expected: tuple[str, Choice, str]
) -> None:
    assert shell.type("mirror", "resolve", "m0", *arguments, "--json") != 0
    assert "--confirm m0" in shell.err
    assert shell.type("mirror", "resolve", "m0", *arguments, "--confirm", "m1") != 0
    assert shell.fake.resolved == []
    assert shell.json("mirror", "resolve", "m0", *arguments, "--confirm", "m0")["name"] == "m0"
    assert shell.fake.resolved == [expected]


def test_one_choice_at_a_time(shell: Shell) -> None:
    assert shell.type("mirror", "resolve", "m0", "--force", "--resume", "--confirm", "m0") != 0
    assert "give one of" in shell.err
    assert shell.fake.resolved == []
