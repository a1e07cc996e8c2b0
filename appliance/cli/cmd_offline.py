"""Commands that need no running service: they look at drives that nobody uses.

Owns how their findings are shown. ``drive inspect``, ``mirror verify``, ``mirror export`` and
``keys recover``; the work is the daemon's, in a process of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from appliance.cli.context import Context, json_option, pass_context
from appliance.cli.offline import drive_argument, optional, run_tool, scratch_option, typed_key
from appliance.cli.output import Output, moment, plain, size
from appliance.core.offline import (
    Export,
    Inspection,
    RecoveredKey,
    Remedy,
    Verification,
    batches,
    counted,
)

_REMEDY_COLOURS: Final = {
    Remedy.HARMLESS: "dim",
    Remedy.PEER: "yellow",
    Remedy.UNKNOWN: "bold yellow",
    Remedy.NONE: "bold red",
}


@click.command("inspect")
@click.argument("drive", type=drive_argument, metavar="PATH_OR_DEVICE")
@scratch_option
@json_option
@pass_context
def inspect_drive(context: Context, drive: Path, scratch: Path | None) -> None:
    """Say what lies on a drive, without the service.

    PATH_OR_DEVICE is a block device that is not mounted, an image file of one, or a
    directory. It is only read: a device is mounted read-only where nobody else sees it.
    No key is needed. Devices and images take root.

    \b
    Examples:
      appliance drive inspect /dev/sdb
      appliance drive inspect /mnt/rescue/sdb.img --json
    """
    arguments = ["inspect", str(drive), *optional("--scratch", scratch)]
    found = run_tool(context, Inspection, arguments)
    if context.output.as_json:
        context.output.document(found)
    else:
        show_inspection(context.output, found)


def show_inspection(output: Output, found: Inspection) -> None:
    """One drive as people read it."""
    output.say(f"[bold]{plain(found.path)}[/]  ({plain(found.access)})")
    log, blobs = found.log, found.blobs
    newest = found.epochs[-1] if found.epochs else None
    standing = "in sync, by all it knows" if found.in_sync else "[bold yellow]not in sync[/]"
    rows = [
        ("drive", f"{plain(found.drive_id or 'not known')}  serial {plain(found.serial or '-')}"),
        ("mirror", f"{plain(found.mirror_id)}  {plain(found.label)}"),
        ("since", moment(found.created_ns) or "never"),
        ("room", f"{size(found.free_bytes)} free of {size(found.total_bytes)}"),
    ]
    if newest is not None:
        members = " ".join(newest.in_sync)
        rows.append(("epoch", f"{newest.number}: {plain(members)}  heartbeat {found.heartbeat}"))
        rows.append(("standing", standing))
    rows += [
        (
            "log",
            f"{batches(log.first_sequence, log.last_sequence)}, {log.records} records in"
            f" {counted(log.segments_used, 'segment')} of {size(log.segment_size_bytes)}"
            f" ({log.segments_free} free)",
        ),
        ("last write", moment(log.last_write_ns) or "never"),
        ("large objects", f"{counted(blobs.owned, 'file')}, {size(blobs.owned_bytes)}"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        output.say(f"  {name:{width}}  {text}")
    for damage in log.damage:
        told = "accepted as lost" if damage.accepted else "[bold red]damaged[/]"
        output.say(
            f"  {told}: segment {damage.segment:08x} at {damage.offset}: {plain(damage.reason)}"
        )
    _show_contracts(output, found)
    output.say()
    for sentence in found.meaning:
        output.say(plain(sentence))
    output.say("\nNext:")
    for sentence in found.advice:
        output.say(f"  {plain(sentence)}")


def _show_contracts(output: Output, found: Inspection) -> None:
    if found.contracts_trouble:
        output.say(f"  contracts cannot be told: {plain(found.contracts_trouble)}")
    if found.contracts:
        output.say()
        rows = [
            (
                f"  {plain(each.name or 'name lost')}",
                plain(each.contract_id),
                str(each.accounts),
                str(each.buckets),
                str(each.objects),
                size(each.size_bytes),
            )
            for each in found.contracts
        ]
        output.table(("  CONTRACT", "ID", "ACCOUNTS", "BUCKETS", "OBJECTS", "BYTES"), rows)


@click.command("verify")
@click.argument("drives", type=drive_argument, nargs=-1, required=True, metavar="DRIVE [DRIVE]")
@scratch_option
@json_option
@pass_context
def verify_mirror(context: Context, drives: tuple[Path, ...], scratch: Path | None) -> None:
    """Check every byte of a mirror's drives, without the service.

    Reads every batch, record and chunk past the page cache, makes the index anew in a
    scratch directory, and compares the drives. Repairs nothing, writes nothing. DRIVE is a
    block device that is not mounted, an image file or a directory.

    \b
    Exit codes: 0 sound, 10 damaged but the other drive has it, 11 something no drive
    has, 12 damaged and the other drive was not given.

    \b
    Examples:
      appliance mirror verify /dev/sdb /dev/sdc
      appliance mirror verify /mnt/rescue/sdb.img
    """
    if len(drives) > 2:
        raise click.UsageError("give one drive, or the two of one mirror")
    arguments = ["verify", *map(str, drives), *optional("--scratch", scratch)]
    found = run_tool(context, Verification, arguments)
    if context.output.as_json:
        context.output.document(found)
    else:
        show_verification(context.output, found)
    raise click.exceptions.Exit(found.exit_code)


def show_verification(output: Output, found: Verification) -> None:
    """A comparison as people read it, the worst first."""
    output.say(f"[bold]mirror {plain(found.mirror_id)}[/]")
    rows = [
        (
            f"  {plain(drive.path)}",
            plain(drive.drive_id),
            plain(drive.standing),
            f"{counted(drive.batches, 'batch')}, {size(drive.log_bytes)}",
            f"{drive.blobs}, {size(drive.blob_bytes)}",
        )
        for drive in found.drives
    ]
    output.table(("  DRIVE", "ID", "STANDING", "LOG", "LARGE OBJECTS"), rows)
    for drive in found.drives:
        output.say(f"  {plain(drive.path)}: {plain(drive.access)}")
    output.say(f"  index made anew from the log: {found.index_records} living records\n")
    for finding in found.findings:
        colour = _REMEDY_COLOURS[finding.remedy]
        output.say(
            f"[{colour}]{finding.remedy.value}[/]: {plain(finding.drive)}: {plain(finding.what)}"
        )
    total = found.harmless + found.repairable + found.lost + found.unknown
    if total > len(found.findings):
        output.say(f"and {total - len(found.findings)} more")
    output.say(_verdict(found))
    if found.advice:
        output.say("\nNext:")
        for sentence in found.advice:
            output.say(f"  {plain(sentence)}")


def _verdict(found: Verification) -> str:
    if found.lost:
        return (
            f"[bold red]Lost[/]: {counted(found.lost, 'finding')} that no drive given makes good."
        )
    if found.unknown:
        count = counted(found.unknown, "finding")
        return f"[bold yellow]Damaged[/]: {count}; the other drive may have what is bad."
    if found.repairable:
        count = counted(found.repairable, "finding")
        return f"[yellow]Repairable[/]: {count}, all of it whole on the other drive."
    return "[green]Sound[/]: every batch, record and chunk verifies."


@click.command("export")
@click.argument("drive", type=drive_argument)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="DIRECTORY|URL",
    help="A directory, or an S3 endpoint: https://HOST or https://HOST/BUCKET/PREFIX.",
)
@click.option(
    "--master-key", type=click.Path(path_type=Path), help="The appliance's master key file."
)
@click.option(
    "--recovery-key",
    metavar="FILE",
    help="A file with the recovery key as it was written down; - asks for it, or reads stdin.",
)
@scratch_option
@json_option
@pass_context
def export_mirror(
    context: Context,
    drive: Path,
    target: str,
    master_key: Path | None,
    recovery_key: str | None,
    scratch: Path | None,
) -> None:
    """Copy every readable object of one drive elsewhere, without the service.

    One drive of a mirror is enough, with the master key or the recovery key. The drive is
    only read. Objects go to DIRECTORY/buckets; manifest.jsonl beside them has each one's
    key, ETag, metadata and tags. Run again, it copies what is missing.

    An S3 endpoint gets the same buckets, made where they are missing, or with a bucket in
    the URL everything below its prefix. Credentials come from AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_CA_BUNDLE.

    \b
    Exit codes: 0 everything, 11 something could not be read (unreadable.jsonl names it).

    \b
    Examples:
      appliance mirror export /dev/sdb --to /mnt/rescue --master-key /root/master.key
      appliance mirror export sdb.img --to /mnt/rescue --recovery-key -
      appliance mirror export /dev/sdb --to https://s3.example.com --master-key master.key
    """
    if (master_key is None) == (recovery_key is None):
        raise click.UsageError("give --master-key or --recovery-key")
    arguments = [
        *("export", str(drive), "--to", target),
        *optional("--master-key", master_key),
        *optional("--recovery-key", recovery_key),
        *optional("--scratch", scratch),
    ]
    found = run_tool(context, Export, arguments, typed=typed_key(recovery_key))
    if context.output.as_json:
        context.output.document(found)
    else:
        show_export(context.output, found)
    raise click.exceptions.Exit(found.exit_code)


def show_export(output: Output, found: Export) -> None:
    """What was copied, and what was not."""
    output.say(f"{plain(found.path)}: {plain(found.access)}")
    output.say(
        f"[green]Copied[/] {counted(found.copied, 'object')} ({size(found.copied_bytes)}) of"
        f" {counted(found.buckets, 'bucket')} to {plain(found.target)}."
    )
    if found.present:
        output.say(f"{found.present} were there already ({size(found.present_bytes)}).")
    for each in found.unreadable:
        name = plain(f"{each.bucket}/{each.key!r}")
        output.say(f"[bold red]cannot read[/] {name}: {plain(each.reason)}")
    if found.unreadable_count > len(found.unreadable):
        more = found.unreadable_count - len(found.unreadable)
        output.say(f"and {more} more; a directory has all of them in unreadable.jsonl")
    if found.damaged_batches:
        output.say(
            f"[bold red]damaged log[/]: {plain(found.damaged_batches)}: what was stored by"
            " them is not known by name, what was deleted by them may be back"
        )
    if found.advice:
        output.say("\nNext:")
        for sentence in found.advice:
            output.say(f"  {plain(sentence)}")


@click.group()
def keys() -> None:
    """The keys that everything stored depends on."""


@keys.command("recover")
@click.argument("drive", type=drive_argument)
@click.option(
    "--recovery-key",
    required=True,
    metavar="FILE",
    help="A file with the recovery key as it was written down; - asks for it, or reads stdin.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/var/lib/appliance/master.key"),
    show_default=True,
    help="Where the master key is written.",
)
@scratch_option
@json_option
@pass_context
def recover_keys(
    context: Context, drive: Path, recovery_key: str, target: Path, scratch: Path | None
) -> None:
    """Get a lost master key back, with the recovery key and one drive.

    The appliance keeps a copy of its master key on the drives that only the recovery key
    opens. The drive is only read. Stop the appliance first.

    \b
    Examples:
      appliance keys recover /dev/sdb --recovery-key -
      appliance keys recover /dev/sdb --recovery-key key.txt --to /root/master.key
    """
    arguments = [
        *("recover-key", str(drive), "--recovery-key", recovery_key, "--to", str(target)),
        *optional("--scratch", scratch),
    ]
    found = run_tool(context, RecoveredKey, arguments, typed=typed_key(recovery_key))
    if context.output.as_json:
        context.output.document(found)
        return
    context.output.say(
        f"[green]Recovered[/] master key {plain(found.key_id)}: {plain(found.master_key_file)}."
    )
    context.output.say("Next: systemctl start appliance.target, then: appliance status")
