"""Scenes: what a machine finds when it is switched on again.

Owns the faults that strike besides the crash itself, on the images that the crash left. Which may
be survived depends on where the mirror stood, so each scene says what must be demanded of it:

- ``must_serve``: enough voters and a whole copy are there, so refusing would be a failure too.
- ``rotten``: drives whose bytes may not verify; reads must be answered by the other drive all the
  same, and a repair must put them right.
- ``victims``: keys that were struck on both drives, which nobody can survive; they must be
  reported, and nothing else may be touched by it.

Whatever else is found must be what was acknowledged, in every scene.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from appliance.engine.mirror.slots import SLOT_BYTES
from tests.crash.images import Content, Image, image_checksum
from tests.crash.machine import DRIVES, WITNESS
from tests.crash.rot import spoil, spoil_content
from tests.crash.world import IndexFiles, Note

Images: TypeAlias = Mapping[str, Image]
BLANK: Final[Image] = {"": None}


@dataclass(frozen=True, slots=True)
class Scene:
    """The state of a machine before it is switched on. A drive that is not ``present`` is away."""

    images: Images
    note: Note
    labels: frozenset[str]
    index: IndexFiles
    present: tuple[str, ...] = DRIVES
    beside: tuple[tuple[str, Image], ...] = ()
    has_witness: bool = True
    must_serve: bool = True
    rotten: frozenset[str] = frozenset()
    victims: frozenset[bytes] = frozenset()
    fails: str = ""
    """A drive that fails while the machine starts."""
    fails_at: int = 0
    index_rots: bool = False
    """Bytes of the index's files are not what was written."""
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def checksum(self) -> int:
        """Over both drives, what is beside them, and W: what is not there counts as such."""
        total = 0
        for place, name in enumerate((*DRIVES, WITNESS), 1):
            away = name not in self.present and name != WITNESS
            away = away or (name == WITNESS and not self.has_witness)
            total = total * 1_000_003 + (place if away else image_checksum(self.images[name]))
        for name, image in self.beside:
            total = total * 1_000_003 + image_checksum(image) + len(name)
        return total & ((1 << 128) - 1)


DRAWS_MAX: Final = 4
"""Of faults for one scene, until one can strike there."""
Draw: TypeAlias = Callable[[Scene, "Past", random.Random], Scene | None]


@dataclass(frozen=True, slots=True)
class Past:
    """Images of earlier moments of the same run, from old to new."""

    images: Sequence[Images]


def other(drive: str) -> str:
    """The peer of a drive."""
    return DRIVES[1 - DRIVES.index(drive)]


def _survivor(scene: Scene, rng: random.Random) -> str | None:
    """A drive whose peer is in sync, so that the mirror can do without it."""
    drives = [drive for drive in DRIVES if other(drive) in scene.note.in_sync - scene.rotten]
    return rng.choice(drives) if drives else None


def _has_two_drives(scene: Scene) -> bool:
    """Whether both drives have a vote, so that W can be done without: a blank one that is being
    brought in has none."""
    return scene.note.is_quiet or scene.note.in_sync == frozenset(DRIVES)


def _labelled(scene: Scene, label: str) -> frozenset[str]:
    return scene.labels | {label}


# -- one fault that must be survived -------------------------------------------------------------


def drive_lost(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """One drive is gone."""
    drive = _survivor(scene, rng)
    if drive is None:
        return None
    return replace(
        scene,
        present=(other(drive),),
        must_serve=scene.note.is_quiet,
        labels=_labelled(scene, "drive lost"),
    )


def drive_replaced(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """A blank drive lies in the place of one."""
    drive = _survivor(scene, rng)
    if drive is None:
        return None
    return replace(
        scene,
        images={**scene.images, drive: BLANK},
        must_serve=scene.note.is_quiet,
        labels=_labelled(scene, "drive replaced by a blank one"),
    )


def witness_lost(scene: Scene, _past: Past, rng: random.Random) -> Scene:
    """W is blank, unreadable, or its device is not there."""
    images, has = dict(scene.images), True
    fate = rng.randrange(3)
    if fate == 0:
        images[WITNESS] = BLANK
    elif fate == 1:
        content = images[WITNESS].get("witness")
        size = 2 * SLOT_BYTES if content is None else len(content.data)
        images[WITNESS] = {"": None, "witness": Content(rng.randbytes(size))}
    else:
        has = False
    return replace(
        scene,
        images=images,
        has_witness=has,
        must_serve=_has_two_drives(scene),
        labels=_labelled(scene, "witness lost"),
    )


def witness_rolled_back(scene: Scene, past: Past, rng: random.Random) -> Scene | None:
    """W is what it was at an earlier moment."""
    older = _older(scene, past, WITNESS, rng)
    if older is None:
        return None
    return replace(
        scene,
        images={**scene.images, WITNESS: older},
        must_serve=_has_two_drives(scene),
        labels=_labelled(scene, "witness rolled back"),
    )


def stale_half(scene: Scene, past: Past, rng: random.Random) -> Scene | None:
    """One drive is what it was at an earlier moment; the other one is in sync."""
    drive = _survivor(scene, rng)
    older = None if drive is None else _older(scene, past, drive, rng)
    if drive is None or older is None:
        return None
    return replace(
        scene,
        images={**scene.images, drive: older},
        must_serve=scene.note.is_quiet,
        labels=_labelled(scene, "stale half"),
    )


def stale_half_and_witness(scene: Scene, past: Past, rng: random.Random) -> Scene | None:
    """A drive and W went back together, to one earlier moment: two of three voters. The third one
    either was in sync all the time, and has everything, or shows the heartbeats of its joining."""
    drive = _survivor(scene, rng)
    if drive is None or not past.images:
        return None
    older = rng.choice(past.images)
    return replace(
        scene,
        images={**scene.images, drive: older[drive], WITNESS: older[WITNESS]},
        must_serve=False,
        labels=_labelled(scene, "stale half and witness"),
    )


def clone(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """A copy of one drive lies beside the two, or in the place of its peer."""
    drive = rng.choice(sorted(scene.rotten) or DRIVES)
    image = scene.images[drive]
    if rng.random() < 0.5:
        quiet = scene.note.is_quiet and other(drive) in scene.note.in_sync
        return replace(
            scene,
            beside=((drive, image),),
            must_serve=quiet,
            labels=_labelled(scene, "clone"),
        )
    return replace(
        scene,
        images={**scene.images, other(drive): image},
        must_serve=False,
        labels=_labelled(scene, "clone"),
        extra={"must refuse": True},
    )


def rot(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """Bytes of one drive are not what was written: a bit, a sector, a block, a block from
    elsewhere."""
    drive = _survivor(scene, rng)
    if drive is None or "superblock" not in scene.images[drive]:
        return None
    image, kind = spoil(scene.images[drive], rng)
    return replace(
        scene,
        images={**scene.images, drive: image},
        rotten=scene.rotten | {drive},
        must_serve=scene.must_serve and (scene.note.is_quiet or kind != "superblock"),
        labels=_labelled(scene, "bit rot"),
    )


def rot_apart(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """Both drives rot, in segments of the log that are not the same."""
    if scene.note.in_sync != frozenset(DRIVES) or not scene.note.is_quiet or scene.rotten:
        return None
    paths = sorted(path for path in scene.images[DRIVES[0]] if path.startswith("log/0"))
    if len(paths) < 2 or any(path not in scene.images[DRIVES[1]] for path in paths):
        return None
    images = dict(scene.images)
    for drive, path in zip(DRIVES, rng.sample(paths, 2), strict=True):
        content = images[drive][path]
        assert content is not None, "a segment is a file"
        images[drive] = {**images[drive], path: spoil_content(content, rng)}
    return replace(
        scene,
        images=images,
        rotten=frozenset(DRIVES),
        labels=_labelled(scene, "both rotten apart"),
    )


def fails_at_start(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """One drive begins to fail while the machine starts."""
    drive = _survivor(scene, rng)
    if drive is None:
        return None
    return replace(
        scene,
        fails=drive,
        fails_at=rng.randint(1, 40),
        must_serve=scene.note.is_quiet,
        labels=_labelled(scene, "drive fails during recovery"),
    )


# -- double faults: nobody can survive them, they must be told -------------------------------------


def rot_together(scene: Scene, _past: Past, rng: random.Random) -> Scene | None:
    """The same record rots on both drives."""
    if scene.note.in_sync != frozenset(DRIVES) or scene.note.pending or scene.rotten:
        return None
    written_by, acked = scene.note.written_by, scene.note.acked
    last = max(written_by.values(), default=0)
    bodies = {key: kept.blob for key, kept in acked.items() if kept.blob and len(kept.blob) > 200}
    fresh = {body[:100] for key, body in bodies.items() if written_by[key] == last}
    found = sorted(key for key, body in bodies.items() if body[:100] not in fresh)
    if not found:
        return None  # the last batch, bad on both drives, looks like one that was never whole
    probe = bodies[rng.choice(found)][:100]
    images, struck = dict(scene.images), set()
    for drive in DRIVES:
        image = dict(images[drive])
        for path, content in _files(image):
            spoilt = _struck(content, probe)
            if spoilt is not content:
                image[path] = spoilt
                struck.add(drive)
        images[drive] = image
    if len(struck) < 2:
        return None
    victims = {key for key, body in bodies.items() if body[:100] == probe}
    return replace(
        scene,
        images=images,
        rotten=frozenset(DRIVES),
        victims=frozenset(victims),
        labels=_labelled(scene, "both rotten together"),
    )


def _files(image: Image) -> list[tuple[str, Content]]:
    """The files of an image."""
    return [(path, content) for path, content in image.items() if content is not None]


def _struck(content: Content, probe: bytes) -> Content:
    """With one bit flipped in each place where these bytes lie."""
    at = content.data.find(probe)
    while at >= 0:
        content = content.patched(at + 7, bytes([content.data[at + 7] ^ 16]))
        at = content.data.find(probe, at)
    return content


SCENES: Final[Sequence[tuple[Draw, int]]] = (
    (drive_lost, 5),
    (drive_replaced, 4),
    (witness_lost, 6),
    (witness_rolled_back, 6),
    (stale_half, 7),
    (stale_half_and_witness, 3),
    (clone, 4),
    (rot, 9),
    (rot_apart, 7),
    (fails_at_start, 5),
    (rot_together, 18),
)


def draw_scene(scene: Scene, past: Past, rng: random.Random) -> Scene:
    """The scene with one more fault, if one that is drawn can strike here."""
    draws, weights = [draw for draw, _ in SCENES], [weight for _, weight in SCENES]
    for draw in rng.choices(draws, weights, k=DRAWS_MAX):
        drawn = draw(scene, past, rng)
        if drawn is not None:
            return drawn
    return scene


def _older(scene: Scene, past: Past, name: str, rng: random.Random) -> Image | None:
    now = image_checksum(scene.images[name])
    older = [one[name] for one in past.images if image_checksum(one[name]) != now]
    return rng.choice(older) if older else None
