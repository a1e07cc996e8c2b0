"""Disks and loop devices as a bay: found through udev, formatted with XFS, mounted privately.

Owns how a device becomes a ``Drive`` and where it is mounted. Refuses kernel names as identity.
Invariant: scanning opens nothing for writing and leaves a drive that is mounted here alone, so that
looking around never disturbs, or waits for, a drive in service.
"""

from __future__ import annotations

import errno
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.control.disks.bay import Mounted
from appliance.control.disks.permissions import Owners, make_private
from appliance.core.drives import Drive, DriveKind, Signature, is_our_label, label_of
from appliance.core.errors import DriveFault
from appliance.core.ports import Space
from appliance.system import block, mount, trim, udev

# Composites and media that are no drives: their parts, if any, are listed themselves.
_NO_DRIVES: Final = ("ram", "zram", "sr", "fd", "dm-", "md")


class BlockBay:
    """The real thing. Needs root for everything but ``scan`` of what any user may read."""

    def __init__(self, drives_directory: Path, owners: Owners | None) -> None:
        self._directory = drives_directory
        self._owners = owners
        self._monitor: udev.BlockMonitor | None = None
        self._lock = threading.Lock()
        self._probes: dict[str, tuple[str, tuple[Signature, ...]]] = {}

    def scan(self, *, fresh: bool = False) -> list[Drive]:
        """Every whole disk with a medium."""
        if fresh:
            self._forget("")
        table = mount.mounts()
        own = {place.node: place for place in self.mounted().values()}
        devices = [
            device
            for device in udev.block_devices()
            if device.device_type == "disk"
            and not device.name.startswith(_NO_DRIVES)
            and block.size_bytes(device.name) > 0
        ]
        return [self._drive(device, table, own.get(device.node)) for device in devices]

    def _drive(
        self, device: udev.BlockDevice, table: list[mount.Mount], own: Mounted | None
    ) -> Drive:
        name, node = device.name, device.node
        parts = block.partitions(name)
        identity, serial, aliases, kind = _names(device)
        faults: tuple[str, ...] = ()
        signatures: tuple[Signature, ...] = ()
        busy = own is not None
        try:
            if own is None:
                busy = block.is_busy(node)
                signatures = self._probed(name, node)
            else:
                signatures = (Signature("xfs", label_of(own.drive_id), own.drive_id),)
        except DriveFault as fault:
            faults = (str(fault),)
        return Drive(
            identity=identity,
            kind=kind,
            node=node,
            size_bytes=block.size_bytes(name),
            serial=serial,
            wwn=device.properties.get("ID_WWN", "") or block.attribute(name, "wwid"),
            model=_model(device),
            aliases=aliases,
            rotational=block.attribute(name, "queue/rotational") == "1",
            read_only=block.attribute(name, "ro") == "1",
            removable=block.attribute(name, "removable") == "1",
            signatures=signatures,
            partitions=parts,
            holders=block.holders(name),
            mounts=_mounts_of(name, parts, table),
            busy=busy,
            drive_id=_our_id(signatures),
            faults=faults,
        )

    def _probed(self, name: str, node: str) -> tuple[Signature, ...]:
        """What is on the device. Probed again only after an event about it, so that a device that
        does not answer is waited for once, not every time anything happens."""
        sequence = block.attribute(name, "diskseq")
        with self._lock:
            known = self._probes.get(name)
        if known is not None and known[0] == sequence:
            return known[1]
        if not block.answers(node):
            # The probe below would take a device that reads nothing for an empty one.
            raise DriveFault(node, "probe", errno.EIO, "it does not answer")
        found = block.signatures(node)
        if self._monitor is not None and self._monitor.source == "udev" and sequence:
            with self._lock:
                self._probes[name] = (sequence, found)
        return found

    def format(self, drive: Drive, drive_id: str, step: Callable[[str], None]) -> None:
        """Wipe, then a fresh XFS whose UUID is the drive id and whose label is ours."""
        step("wiping what is on it")
        block.wipe([*(f"/dev/{part}" for part in drive.partitions), drive.node])
        step("making the file system")
        block.make_xfs(drive.node, label=label_of(drive_id), uuid=str(uuid.UUID(drive_id)))
        block.announce(drive.node)
        self._forget(Path(drive.node).name)

    def mount(self, drive: Drive) -> Path:
        """At a place named after the drive id, never after the device."""
        make_private(self._directory, self._owners)
        place = self._directory / drive.drive_id
        mount.unmount_lazily(place)
        mount.mount_xfs(drive.node, place)
        return place

    def unmount(self, drive_id: str) -> None:
        """Lazily: whoever still holds files there keeps them, the name is gone."""
        mount.unmount_lazily(self._directory / drive_id)

    def mounted(self) -> Mapping[str, Mounted]:
        """Read from the kernel's table, so that a restart of this process finds them again."""
        found = {}
        for entry in mount.mounts():
            target = Path(entry.target)
            if target.parent == self._directory and entry.file_system == "xfs":
                found[target.name] = Mounted(target.name, entry.source, target)
        return found

    def space(self, drive_id: str) -> Space:
        """Of its file system."""
        return trim.space(self._directory / drive_id)

    def pieces(self, drive_id: str) -> Sequence[tuple[int, int]]:
        """Of its file system."""
        return trim.pieces(self._directory / drive_id)

    def trim(self, drive_id: str, start: int, length: int) -> int | None:
        """Discard what XFS does not use."""
        return trim.trim(self._directory / drive_id, start, length)

    def answers(self, drive: Drive) -> bool:
        """One direct read of the first block."""
        return block.answers(drive.node)

    def watch(self, callback: Callable[[], None]) -> None:
        """Start the event thread."""

        def on_event(event: udev.BlockEvent) -> None:
            self._forget(event.name)
            callback()

        self._monitor = udev.BlockMonitor(on_event)
        self._monitor.start()

    def close(self) -> None:
        """Stop the event thread."""
        if self._monitor is not None:
            self._monitor.stop()
            self._monitor = None

    def _forget(self, name: str) -> None:
        with self._lock:
            if name:
                self._probes.pop(name, None)
            else:
                self._probes.clear()


def _names(device: udev.BlockDevice) -> tuple[str, str, tuple[str, ...], DriveKind]:
    """Identity, serial, aliases and kind."""
    backing = block.attribute(device.name, "loop/backing_file")
    if device.name.startswith("loop") and backing:
        path = block.backing_file(device.name)
        # The path is what an operator knows, and stays the same over detach and reboot.
        return (f"loop:{path}" if path else ""), Path(path).name, (), DriveKind.LOOP
    known = device.properties
    serial = (
        known.get("ID_SCSI_SERIAL")
        or known.get("ID_SERIAL_SHORT")
        or known.get("ID_SERIAL")
        or block.attribute(device.name, "serial")
        or block.attribute(device.name, "device/serial")
    )
    wwn = known.get("ID_WWN_WITH_EXTENSION") or known.get("ID_WWN") or ""
    links = [Path(link) for link in known.get("DEVLINKS", "").split()]
    by_id = tuple(link.name for link in links if link.parent.name == "by-id")
    aliases = tuple(dict.fromkeys(name for name in (wwn, *by_id) if name))
    return known.get("ID_SERIAL") or serial or wwn, serial, aliases, DriveKind.DISK


def _model(device: udev.BlockDevice) -> str:
    if device.name.startswith("loop"):
        return "loop device"
    model = device.properties.get("ID_MODEL", "").replace("_", " ")
    return model or block.attribute(device.name, "device/model")


def _mounts_of(name: str, partitions: tuple[str, ...], table: list[mount.Mount]) -> tuple[str, ...]:
    """Where the disk or a partition of it is mounted, by device number and by name (btrfs mounts
    carry a device number of their own)."""
    numbers = {block.attribute(name, "dev")}
    numbers |= {block.attribute(name, f"{part}/dev") for part in partitions}
    nodes = {f"/dev/{each}" for each in (name, *partitions)}
    return tuple(
        dict.fromkeys(
            entry.target for entry in table if entry.device in numbers or entry.source in nodes
        )
    )


def _our_id(signatures: tuple[Signature, ...]) -> str:
    """The drive id, when the file system and its label are ours and nothing else is there."""
    for signature in signatures:
        if signature.type == "xfs" and is_our_label(signature.label) and signature.uuid:
            return signature.uuid.replace("-", "")
    return ""
