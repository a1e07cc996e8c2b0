"""What a simulated drive can hold after a crash: frozen drives, and the images they may come to.

Owns the rule of what a power cut may keep, the same for a running drive and for a frozen one. A
write that was not flushed may be kept, lost or torn at any 512-byte sector, each by itself; changes
of names that were not flushed are kept up to some point of their journal. Invariant: an image never
changes, so drives, moments and states share the contents that are equal in them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias, TypeVar

from awscrt.checksums import crc32c, crc64nvme

T = TypeVar("T")
BLOCK_BYTES: Final = 4096
SECTOR_BYTES: Final = 512
OUTCOMES_EACH_MAX: Final = 32
"""Up to so many outcomes of one drive every one is made, before any is torn; beyond, a sample."""


class Content:
    """The bytes of a file at one moment. Never changes; its checksum is worked out once."""

    __slots__ = ("_checksum", "data")

    def __init__(self, data: bytes) -> None:
        self.data: Final = data
        self._checksum = -1

    @property
    def checksum(self) -> int:
        """96 bits over the content."""
        if self._checksum < 0:
            self._checksum = crc64nvme(self.data) << 32 | crc32c(self.data)
        return self._checksum

    def patched(self, offset: int, data: bytes) -> Content:
        """The content with other bytes in one place."""
        changed = bytearray(self.data)
        put_bytes(changed, offset, data)
        return Content(bytes(changed))


EMPTY: Final = Content(b"")
Image: TypeAlias = Mapping[str, Content | None]
"""A drive's stable storage: path → content, None for a directory. Read only."""


class Waiting(NamedTuple):
    """A write that is not flushed, or a change of length (``data`` is None)."""

    offset: int
    data: bytes | None


class FrozenFile(NamedTuple):
    """A file at one moment: what is stable, and what waits in the cache."""

    stable: Content
    waiting: tuple[Waiting, ...]


class NameChange(NamedTuple):
    """A journaled change of names that is not flushed."""

    kind: str
    source: str
    target: str
    file: FrozenFile | None


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """A drive at one moment of a run."""

    tree: Mapping[str, FrozenFile | None]
    journal: tuple[NameChange, ...]

    @property
    def is_settled(self) -> bool:
        """Whether a power cut leaves only one image."""
        waiting = any(file is not None and file.waiting for file in self.tree.values())
        return not self.journal and not waiting

    def outcomes(self, rng: random.Random, limit: int) -> list[Image]:
        """Up to ``limit`` different images a power cut may leave: all of them while they are few
        and nothing is torn, then torn ones, the least and the most always among them."""
        if self.is_settled:
            return [self._settled(len(self.journal), iter(()))]
        choices = self._whole_choices(rng, limit)
        found: dict[int, Image] = {}
        for journal, keeps in choices:
            image = self._settled(journal, keeps)
            found.setdefault(image_checksum(image), image)
            if len(found) == limit:
                break
        return list(found.values())

    def everything(self) -> Image:
        """What a reader sees: all of the cache."""
        return self._settled(len(self.journal), _always(1))

    def _whole_choices(
        self, rng: random.Random, limit: int
    ) -> Iterator[tuple[int, Iterator[float]]]:
        """Rulings of a cut, the telling ones first: a point in the journal, and for each write the
        share of its sectors that is kept (0, 1, or torn in between)."""
        writes = self._count_waiting()
        depth = len(self.journal)
        whole = (depth + 1) << min(writes, 20)
        if whole <= OUTCOMES_EACH_MAX:
            every: list[tuple[int, list[float]]] = [
                (point, [(mask >> n) & 1 for n in range(writes)])
                for point in range(depth + 1)
                for mask in range(1 << writes)
            ]
            least, *rest, most = every
            rng.shuffle(rest)
            torn: list[float] = [rng.random() for _ in range(writes)]
            rest.insert(min(len(rest), limit // 3), (depth, torn))
            for point, keeps in (least, most, *rest):
                yield point, iter(keeps)
        else:
            yield 0, _always(0)
            yield depth, _always(1)
        for _ in range(4 * limit):
            yield rng.randint(0, depth), _some(rng)

    def _count_waiting(self) -> int:
        files = {id(file): file for file in self._files()}
        return sum(len(file.waiting) for file in files.values())

    def _files(self) -> Iterator[FrozenFile]:
        yield from (file for file in self.tree.values() if file is not None)
        yield from (change.file for change in self.journal if change.file is not None)

    def _settled(self, journal: int, keeps: Iterator[float]) -> Image:
        tree: dict[str, FrozenFile | None] = dict(self.tree)
        for change in self.journal[:journal]:
            change_names(tree, change.kind, change.source, change.target, change.file)
        settled: dict[int, Content] = {}
        image: dict[str, Content | None] = {}
        for path, file in tree.items():
            if file is None:
                image[path] = None
            elif not file.waiting:
                image[path] = file.stable
            else:
                if id(file) not in settled:
                    settled[id(file)] = _settle(file, keeps)
                image[path] = settled[id(file)]
        return image


def _always(share: float) -> Iterator[float]:
    while True:
        yield share


def _some(rng: random.Random) -> Iterator[float]:
    while True:
        fate = rng.randrange(4)
        yield fate if fate < 2 else rng.random()


def _settle(file: FrozenFile, keeps: Iterator[float]) -> Content:
    content = bytearray(file.stable.data)
    for (offset, data), share in zip(file.waiting, keeps, strict=False):
        if share > 0:
            keep_write(content, offset, data, share)
    return Content(bytes(content))


def keep_write(content: bytearray, offset: int, data: bytes | None, share: float) -> None:
    """Bring a waiting write to stable storage: wholly (share 1), or torn in a way that the share
    decides, so that every way can be had and one number replays it."""
    if data is None:
        resize(content, offset)
    elif share >= 1:
        put_bytes(content, offset, data)
    else:
        for number in torn_sectors(-(-len(data) // SECTOR_BYTES), share):
            at = number * SECTOR_BYTES
            put_bytes(content, offset + at, data[at : at + SECTOR_BYTES])


def torn_sectors(count: int, share: float) -> Sequence[int]:
    """Which sectors of a torn write are kept: a beginning, an end, all but one, or any."""
    rng = random.Random(share)
    fate = rng.randrange(5)
    point = rng.randrange(count)
    if fate == 0:
        return range(point)
    if fate == 1:
        return range(point, count)
    if fate == 2:
        return [number for number in range(count) if number != point]
    return [number for number in range(count) if rng.random() < share]


def change_names(tree: dict[str, T], kind: str, source: str, target: str, file: T) -> None:
    """Carry out a journaled change of names."""
    if kind == "create":
        tree[source] = file
    elif kind == "unlink":
        tree.pop(source, None)
    elif source in tree:
        tree[target] = tree.pop(source)
        for path in [path for path in tree if path.startswith(f"{source}/")]:
            tree[target + path[len(source) :]] = tree.pop(path)


def resize(content: bytearray, length: int) -> None:
    """Cut off, or fill up with zeros."""
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def put_bytes(content: bytearray, offset: int, data: bytes) -> None:
    """Overwrite in place, growing where it is too short."""
    if len(content) < offset + len(data):
        resize(content, offset + len(data))
    content[offset : offset + len(data)] = data


@dataclass(slots=True)
class _Sums:
    """Checksums of names, which come again and again."""

    by_path: dict[str, int] = field(default_factory=dict)


_SUMS: Final = _Sums()
_MASK: Final = (1 << 128) - 1
_PRIME: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835


def image_checksum(image: Image) -> int:
    """128 bits over all of an image; equal images have equal ones. Costs little for an image that
    shares most of its contents with one that was summed before."""
    total = 0
    names = _SUMS.by_path
    for path, content in image.items():
        name = names.get(path)
        if name is None:
            name = names[path] = crc64nvme(path.encode()) | 1
        body = 1 if content is None else content.checksum * _PRIME + len(content.data) + 2
        total += (name * (body & _MASK)) ^ (body >> 7)
    return total & _MASK
