"""Sabotages chosen by hand: what an engineer in a hurry might do to the engine.

Each replaces one piece of text, which must stand exactly once in its file, so that a sabotage whose
target was rewritten is noticed and chosen anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.sites import Mutant


@dataclass(frozen=True, slots=True)
class Sabotage:
    """``original`` in ``module``, below ``appliance``, becomes ``replacement``."""

    name: str
    module: str
    original: str
    replacement: str


SABOTAGES: Final[tuple[Sabotage, ...]] = (
    Sabotage(
        "acknowledge-one-drive",
        "engine/mirror/commit",
        "appending(m) for d, m in state.members.items()",
        "appending(m) for d, m in list(state.members.items())[:1]",
    ),
    Sabotage(
        "swallow-a-failed-append",
        "engine/mirror/commit",
        "        state.lose(answers.faults)",
        "        pass",
    ),
    Sabotage(
        "forget-the-blobs-names",
        "engine/mirror/commit",
        "names = self._blobs.take_touched()",
        "names = list(self._blobs.take_touched())[:0]",
    ),
    Sabotage(
        "forget-earlier-outcomes",
        "engine/mirror/commit",
        "version = self._state.index.request_outcome(commit.request_id)",
        "version = None",
    ),
    Sabotage(
        "judge-each-commit-alone",
        "engine/mirror/commit",
        "            judge.accept(judged)\n",
        "            judge._number += 1\n",
    ),
    Sabotage(
        "let-puts-use-the-reserve",
        "engine/mirror/commit",
        "if not puts_fit and any(",
        "if False and any(",
    ),
    Sabotage(
        "adopt-what-one-drive-lacks",
        "engine/mirror/commit",
        "staged = [complete(self._state, self._blobs, blob) for blob in judged.staged]",
        "staged = list(judged.staged)",
    ),
    Sabotage(
        "leave-the-last-batch-unmarked",
        "engine/mirror/commit",
        "            self.unmarked = True",
        "            self.unmarked = False",
    ),
    Sabotage(
        "charge-without-taking-back",
        "engine/mirror/judge",
        "changes[counter] = changes.get(counter, 0) - amount",
        "changes[counter] = changes.get(counter, 0)",
    ),
    Sabotage(
        "limit-one-too-early",
        "engine/mirror/judge",
        "judged.counters[counter] > maximum:",
        "judged.counters[counter] >= maximum:",
    ),
    Sabotage(
        "overlook-the-batch-in-flight",
        "engine/mirror/judge",
        "if held is not None and start <= key < end and key not in deleted:",
        "if False:",
    ),
    Sabotage(
        "let-a-move-bring-back-the-old",
        "engine/mirror/index_apply",
        "if record.kind is Kind.MOVE and old[0] > record.version:",
        "if False:",
    ),
    Sabotage(
        "never-lower-a-counter",
        "engine/mirror/index_apply",
        "self._charge(at[0], charges, -1)",
        "pass",
    ),
    Sabotage(
        "release-another-records-blob",
        "engine/mirror/index_apply",
        " and self._owner(record.blob_id) == at",
        "",
    ),
    Sabotage(
        "release-what-was-taken-again",
        "engine/mirror/index_apply",
        "many(_UNRELEASE, [(blob_id,) for blob_id in self._owned])",
        "pass",
    ),
    Sabotage(
        "copy-a-batch-without-its-blobs",
        "engine/mirror/recovery",
        "ensure(file_blobs(batch))",
        "pass",
    ),
    Sabotage(
        "trust-the-last-batch-as-found",
        "engine/mirror/recovery",
        "            member.log.rewrite(recovery.last)",
        "            pass",
    ),
    Sabotage(
        "let-generations-differ",
        "engine/mirror/recovery",
        "if own is not None and own.generation < state.generation:",
        "if False:",
    ),
    Sabotage(
        "drop-a-batch-one-drive-has",
        "engine/mirror/recovery",
        "        if missing == 0:",
        "        if missing <= 1:",
    ),
    Sabotage(
        "repair-from-a-bad-copy",
        "engine/mirror/recovery",
        "if not any(damage.overlaps(theirs) for theirs in found.damage):",
        "if True:",
    ),
    Sabotage(
        "overwrite-the-newest-slot",
        "engine/mirror/slots",
        "first = 1 - self._newest.number",
        "first = self._newest.number",
    ),
    Sabotage(
        "believe-the-oldest-slot",
        "engine/mirror/slots",
        "return max(found, key=lambda slot: slot.counter)",
        "return min(found, key=lambda slot: slot.counter)",
    ),
    Sabotage(
        "never-mind-a-missing-vote",
        "engine/mirror/votes",
        "and done < plan.valid_after:",
        "and done < 0:",
    ),
    Sabotage(
        "beat-though-the-witness-did-not",
        "engine/mirror/votes",
        "self._heartbeat -= 1  # no drive may show a beat that W does not\n            return {}",
        "pass",
    ),
    Sabotage(
        "copy-a-blob-unverified",
        "engine/mirror/adoption",
        "if not check.is_complete:",
        "if False:",
    ),
    Sabotage(
        "adopt-a-blob-twice",
        "engine/mirror/adoption",
        "if known or index.owner(blob_id) is not None:",
        "if False:",
    ),
    Sabotage(
        "adopt-a-released-blob",
        "engine/mirror/adoption",
        "known = blob_id in self._taken or index.is_released(blob_id)",
        "known = blob_id in self._taken",
    ),
    Sabotage(
        "trust-a-clock-that-was-set",
        "engine/mirror/upkeep",
        "if self._steady.steady_for_s() < grace_s:",
        "if False:",
    ),
    Sabotage(
        "unlink-before-the-grace",
        "engine/mirror/upkeep",
        "before_ns = now_ns - int(grace_s * 1e9)",
        "before_ns = now_ns",
    ),
    Sabotage(
        "sweep-released-blobs",
        "engine/mirror/upkeep",
        "(index.owner(blob_id) is None and not index.is_released(blob_id))",
        "index.owner(blob_id) is None",
    ),
    Sabotage(
        "free-before-the-checkpoint",
        "engine/mirror/compaction",
        "if due and flushed is not None and flushed.sequence >= relocated.through:",
        "if due:",
    ),
    Sabotage(
        "move-what-was-replaced",
        "engine/mirror/compaction",
        "if places.get(at) == location.encode():",
        "if True:",
    ),
    Sabotage(
        "forget-deletes-when-compacting",
        "engine/mirror/compaction",
        "if record.kind is not Kind.DELETE or victim.is_oldest or at in places:",
        "if True:",
    ),
    Sabotage(
        "free-behind-an-ambiguous-tail",
        "engine/mirror/compaction",
        "            self._committer.write_mark()",
        "            pass",
    ),
    Sabotage(
        "reuse-an-epochs-number",
        "core/membership",
        "next_number=votes.number_seen + 1",
        "next_number=epoch.number + 1",
    ),
    Sabotage(
        "void-without-all-voters",
        "core/ballots",
        "return votes.witness is not None and electorate(history) <= testify",
        "return True",
    ),
    Sabotage(
        "serve-alone-without-a-witness",
        "core/membership",
        "        return len(in_sync) > 1\n",
        "        return True\n",
    ),
    Sabotage(
        "read-a-blob-unverified",
        "engine/mirror/blob",
        "if view[position : position + HEADER_BYTES] != _seal(blob_id, number, payload):",
        "if False:",
    ),
    Sabotage(
        "read-another-records-blob",
        "engine/mirror/reader",
        "if record.key != place.key or record.version != place.version:",
        "if False:",
    ),
    Sabotage(
        "read-a-batch-unverified",
        "engine/mirror/format",
        "if crc32c(data[BATCH_HEADER_BYTES:end]) != header.payload_crc:",
        "if False:",
    ),
    Sabotage(
        "read-a-misdirected-record",
        "engine/mirror/format",
        " or own_offset != offset:",
        ":",
    ),
    Sabotage(
        "read-a-record-unverified",
        "engine/mirror/format",
        "if crc32c(data[at + _CRC.size : end], seed) != crc",
        "if False",
    ),
)


def chosen(root: Path) -> list[Mutant]:
    """The sabotages as mutants. Raises ``AssertionError`` for one whose target is not there."""
    return [_mutant(root, sabotage) for sabotage in SABOTAGES]


def _mutant(root: Path, sabotage: Sabotage) -> Mutant:
    path = f"appliance/{sabotage.module}.py"
    source = (root / path).read_bytes()
    original = sabotage.original.encode()
    assert source.count(original) == 1, f"{sabotage.name}: its target is not once in {path}"
    start = source.index(original)
    line = source.count(b"\n", 0, start) + 1
    return Mutant(
        f"chosen:{sabotage.name}",
        path,
        line,
        line + original.count(b"\n"),
        start,
        start + len(original),
        sabotage.replacement.encode(),
    )
