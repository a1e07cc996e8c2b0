"""The mutants of the engine: what counts as a safeguard, and what disabling one does."""

from __future__ import annotations

import os
import tempfile
import threading
import types
from pathlib import Path
from typing import Final

import pytest

from tests.mutants import known
from tests.mutants.children import Tell, watched
from tests.mutants.chosen import chosen
from tests.mutants.sites import Mutant, find, find_in
from tests.mutants.swap import Loaded
from tests.mutants.trial import Verdict

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = b"""
assert crc == 1
class Slot:
    def read(self, header, deadline_s):
        assert header.crc == 1
        if header.crc != self.crc:
            raise Damaged(
                "bad"
            )
        if header.crc == 0:
            return None
        self.file.flush()
        self.lane.run(partial(_flush, self.file), deadline_s=deadline_s)
        self.done.wait(deadline_s)
        if header.sequence < 7 and not self.is_whole(header):
            return self.votes.beat()
        return self.volume.open("\xc3\xa9", durable=True)
"""


def test_each_safeguard_is_disabled_in_turn() -> None:
    changes = {
        mutant.name.removeprefix("slots.Slot.read:"): (
            SOURCE[mutant.start : mutant.end].partition(b"\n")[0],
            mutant.apply(SOURCE)[mutant.start :][: len(mutant.replacement)],
        )
        for mutant in find_in("slots.py", SOURCE)
    }
    assert changes == {
        "check:2": (b"header.crc == 0", b"True"),
        "raise:1": (b"raise Damaged(", b"pass"),
        "flush:1": (b"self.file.flush()", b"None"),
        "flush:2": (b"_flush", b"(lambda *_, **__: None)"),
        "deadline:1": (b"deadline_s", b"1e9"),
        "deadline:2": (b"deadline_s", b"1e9"),
        "order:1": (b"header.sequence < 7", b"True"),
        "order:2": (b"header.sequence < 7", b"False"),
        "proof:1": (b"self.is_whole(header)", b"True"),
        "vote:1": (b"self.votes.beat()", b"None"),
        "durable:1": (b"True", b"False"),
    }


def test_a_mutant_is_put_into_the_loaded_function(tmp_path: Path) -> None:
    file = tmp_path / "appliance" / "slots.py"
    file.parent.mkdir()
    source = b"def check(crc):\n    if crc != 7:\n        raise ValueError\n    return crc\n"
    file.write_bytes(source)
    module = types.ModuleType("slots")
    exec(compile(source, file, "exec"), vars(module))
    imported = module.check
    (raising,) = (each for each in find_in("appliance/slots.py", source) if "raise" in each.name)
    Loaded(tmp_path).disable(raising)
    assert imported(8) == 8


def test_a_mutant_no_loaded_function_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "appliance" / "slots.py"
    file.parent.mkdir()
    source = b"def check(crc):\n    raise ValueError\n"
    file.write_bytes(source)
    (raising,) = find_in("appliance/slots.py", source)
    with pytest.raises(AssertionError, match="no loaded function"):
        Loaded(tmp_path).disable(raising)


def test_a_child_that_hangs_is_ended_and_leaves_nothing() -> None:
    def hang(tell: Tell) -> None:
        tell(step="waiting", limit_s=0.05)
        tell(place=tempfile.mkdtemp())
        threading.Event().wait()

    outcome = watched(hang)
    assert outcome.lost_in == "waiting"
    assert not Path(outcome.first("place")).exists()


def test_what_a_child_tells_and_raises_is_heard() -> None:
    def fail(tell: Tell) -> None:
        tell(failed="this one")
        raise ValueError("so it is")

    outcome = watched(fail)
    assert outcome.first("failed") == "this one"
    assert "so it is" in outcome.raised
    assert not watched(lambda tell: None).raised
    assert watched(lambda tell: os._exit(3)).lost_in


def test_the_shares_are_a_partition() -> None:
    mutants = find(ROOT)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 200
    shares = [mutant.share(10) for mutant in mutants]
    assert set(shares) == set(range(10))
    assert max(map(shares.count, range(10))) < len(mutants) / 5


def test_every_chosen_sabotage_still_has_its_target() -> None:
    for mutant in chosen(ROOT):
        assert mutant.apply((ROOT / mutant.path).read_bytes())


def test_what_became_of_each_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SURVIVORS", tmp_path / "survivors.txt")
    monkeypatch.setattr(known, "CAUGHT", tmp_path / "caught.txt")
    first, second, *_ = mutants = list(find_in("slots.py", SOURCE))
    names = [mutant.name for mutant in mutants]

    def tried(mutant: Mutant, caught_by: str) -> dict[str, Verdict]:
        return {mutant.name: Verdict(mutant.name, "", caught_by, "", False, 1, 1.0)}

    known.write(names, tried(first, "test_a[x  y]") | tried(second, ""))
    assert known.survivors() == {second.name}
    assert known.catchers() == {first.name: "test_a[x  y]"}
    assert known.tests_of([second])[second.path, second.line] == {"test_a[x  y]"}
    known.write(names, tried(second, "test_b"))
    assert known.survivors() == set()
    known.write(names[1:], tried(second, ""))
    assert known.survivors() == {second.name}
    assert known.catchers() == {}


def test_each_listed_mutant_is_caught_or_survives() -> None:
    assert not known.survivors() & known.catchers().keys()
