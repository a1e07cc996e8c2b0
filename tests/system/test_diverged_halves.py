"""Each half of a mirror went on without the other, one of them by force: nothing of the half that
the operator went on without is lost or touched. On real XFS with the whole appliance."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.system.drives import until
from tests.system.workbench import Workbench, workbench

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.needs("mkfs.xfs", "losetup", "xfs_metadump", "xfs_mdrestore"),
]


def _asked(bench: Workbench, option: str) -> str:
    """Wait until an operator is asked to decide with this option; all that is said then."""
    told = ""

    def asked() -> bool:
        nonlocal told
        if not bench.machine.mirror()["question"]:
            return False
        told = bench.machine.type("mirror", "resolve", "m0")
        return f"Next: appliance mirror resolve m0 {option}" in told

    until(asked, f"the mirror to ask for {option}", deadline_s=60)
    return told


def _files(root: Path) -> dict[str, str]:
    """What matters of a drive, and when it was written last."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name not in {"drive-id"}:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(root))] = f"{path.stat().st_mtime_ns} {digest}"
    return found


def test_what_went_on_alone_before_a_force_is_detached_whole(tmp_path: Path) -> None:
    """One half goes on with the witness. Then both are away, and the other half is forced."""
    with workbench(tmp_path) as bench:
        bench.put("both")
        theirs = _goes_on_alone(bench)
        _goes_on_by_force(bench)
        bench.plug("a")
        before = _files(bench.root("a") / "log")
        bench.start("a", "b")
        bench.becomes("degraded")
        bench.put("after the return")
        bench.check()
        loser = bench.member("a")
        assert loser["detached"] and loser["present"] and not loser["in_sync"]
        assert loser["reason"].startswith("its history went its own way")
        assert not bench.machine.mirror()["question"], "the force was the answer"
        bench.machine.kill_all()
        assert _files(bench.root("a") / "log") == before, "nothing was written to it"
        bench.unplug("a")
        _is_whole(bench, tmp_path / "taken away", theirs)


def _goes_on_alone(bench: Workbench) -> dict[str, bytes]:
    """What the first drive holds then."""
    bench.machine.kill_all()
    bench.start("a")
    bench.becomes("degraded")
    bench.put("on a")
    bench.machine.kill_all()
    return dict(bench.stored)


def _goes_on_by_force(bench: Workbench) -> None:
    """The other half, with a witness that is lost."""
    bench.witness.unlink()
    del bench.stored["on a"]
    bench.start("b")
    assert "is detached, not merged" in _asked(bench, "--force")
    assert bench.machine.mirror()["state"] == "offline"
    bench.machine.type("mirror", "resolve", "m0", "--force", "--confirm", "m0")
    bench.becomes("degraded")
    bench.put("on b")
    bench.check()
    bench.machine.kill_all()


def _is_whole(bench: Workbench, target: Path, theirs: dict[str, bytes]) -> None:
    """The half that was passed over gives back all it has, without the service."""
    image = str(bench.drives["a"].image)
    assert "The log is whole" in bench.machine.type("drive", "inspect", image)
    master = str(bench.machine.home / "state/master.key")
    bench.machine.type("mirror", "export", image, "--to", str(target), "--master-key", master)
    found = {path.name: path.read_bytes() for path in (target / "buckets" / bench.bucket).iterdir()}
    assert found == theirs
