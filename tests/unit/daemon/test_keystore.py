"""Gateways remember secrets for a moment, and a little longer while control is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.core.errors import NotFound, Unavailable
from appliance.core.ports import Credential, Owner
from appliance.daemon.keystore import (
    FRESH_S,
    STALE_S_MAX,
    RemoteKeys,
    credential_fields,
    credential_from,
)
from appliance.runtime.ipc import Peer, Server, serve
from appliance.runtime.link import Link

CREDENTIAL = Credential("AK", "secret", "u1", "Acme", "c1", "acme-", frozen=False)


class StepClock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ns(self) -> int:
        return int(self.now_s * 10**9)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.now_s += seconds


class FakeControl:
    """Answers as control does and counts the questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[tuple[str, Any], Any] = {
            ("credential", "AK"): credential_fields(CREDENTIAL),
            ("contract_key", "c1"): b"k" * 32,
            ("owner", ("c1", "u1")): ["u1", "Acme"],
        }

    async def start(self, path: Path) -> Server:
        handlers = {name: self._answer(name) for name in ("credential", "contract_key", "owner")}
        return await serve(path, handlers)

    def _answer(self, method: str) -> Any:
        async def answer(peer: Peer, params: Any) -> Any:
            question = (method, tuple(params) if isinstance(params, list) else params)
            self.asked.append(question)
            return self.answers.get(question)

        return answer


def test_answers_cross_and_are_remembered_for_a_moment(tmp_path: Path) -> None:
    async def scenario() -> None:
        control, clock = FakeControl(), StepClock()
        server = await control.start(tmp_path / "control.sock")
        link = Link(tmp_path / "control.sock", role="gateway 0")
        link.start()
        keys = RemoteKeys(link, clock)
        found = await asyncio.gather(*(keys.credential("AK") for _ in range(50)))
        assert found == [CREDENTIAL] * 50
        assert await keys.contract_key("c1") == b"k" * 32
        assert await keys.owner("c1", "u1") == Owner("u1", "Acme")
        assert len(control.asked) == 3
        assert await keys.credential("unknown") is None
        with pytest.raises(NotFound):
            await keys.contract_key("erased")
        control.answers[("credential", "AK")] = None
        assert await keys.credential("AK") == CREDENTIAL
        clock.now_s += FRESH_S + 0.1
        assert await keys.credential("AK") is None
        await link.close()
        await server.close()

    asyncio.run(scenario())


def test_a_restart_of_control_fails_no_request_but_its_absence_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.daemon.keystore.ANSWER_S", 0.05)

    async def scenario() -> None:
        control, clock = FakeControl(), StepClock()
        server = await control.start(tmp_path / "control.sock")
        link = Link(tmp_path / "control.sock", role="gateway 0")
        link.start()
        keys = RemoteKeys(link, clock)
        assert await keys.credential("AK") == CREDENTIAL
        await server.close()
        clock.now_s += FRESH_S + 1
        assert await keys.credential("AK") == CREDENTIAL
        with pytest.raises(Unavailable):
            await keys.credential("never asked before")
        clock.now_s += STALE_S_MAX
        with pytest.raises(Unavailable):
            await keys.credential("AK")
        server = await control.start(tmp_path / "control.sock")
        assert await link.call("owner", ["c1", "u1"]) == ["u1", "Acme"]
        assert await keys.credential("AK") == CREDENTIAL
        await link.close()
        await server.close()

    asyncio.run(scenario())


def test_fields_of_a_newer_release_are_passed_over() -> None:
    fields = {**credential_fields(CREDENTIAL), "colour": "blue"}
    assert credential_from(fields) == CREDENTIAL
