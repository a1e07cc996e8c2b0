"""A minimal Debian root on disk, with programs run inside it by their own process tree.

Owns the cached base (Debian 12 with git, make and CA certificates, nothing else), a copy per use,
and the programs inside, which all end with the ``MinimalRoot``. Mirrors, proxies, certificates and
pip settings are this machine's: they are handed on, never named. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = "git,make,ca-certificates"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "appliance-tests"
BASE_TIMEOUT_S: Final = 600
INSIDE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HANDED_ON: Final = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT", "REQUESTS_CA")
CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")

# Mounts live in the namespace that unshare makes, so nothing stays mounted when a test is killed.
ENTER: Final = """
set -e
root=$1; shift
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for folder in $WHEEL_FOLDERS; do
    mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"
done
exec chroot "$root" "$@"
"""


class MinimalRoot:
    """One root directory; ``start`` and ``run`` work inside it."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def start(self, script: str, **variables: str) -> subprocess.Popen[str]:
        """A bash script inside, with its output on a pipe. Killing it kills all it started."""
        environment = _environment() | variables
        command = [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"),
            *("bash", "-c", ENTER, "enter", str(self.path), "bash", "-euc", script),
        ]
        return subprocess.Popen(
            command,
            env=environment | {"WHEEL_FOLDERS": " ".join(_wheel_folders())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, script: str, *, timeout_s: float) -> str:
        """The script's output; a failing script fails the test with all it printed."""
        with self.start(script) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            finally:
                process.kill()
        assert process.returncode == 0, f"{script!r} ended with {process.returncode}:\n{output}"
        return output


@contextmanager
def minimal_root(directory: Path) -> Iterator[MinimalRoot]:
    """A fresh copy of the base in ``directory``, removed afterwards."""
    base = _base()
    root = directory / "root"
    root.mkdir()
    try:
        subprocess.run(["tar", "-xf", base, "-C", root], check=True)
        _hand_on_settings(root)
        yield MinimalRoot(root)
    finally:
        shutil.rmtree(root)


def _base() -> Path:
    """The cached archive of the base; made once per machine."""
    archive = CACHE / f"{SUITE}-minimal.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(".new.tar")
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}"]
        command += [f"--aptopt={path}" for path in sorted(Path("/etc/apt/apt.conf.d").glob("*"))]
        command += [SUITE, str(fresh), *_sources()]
        subprocess.run(command, check=True, timeout=BASE_TIMEOUT_S)
        fresh.rename(archive)
    return archive


def _sources() -> list[str]:
    """This machine's own package sources for the suite; none: mmdebstrap's default."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return [
        str(path)
        for path in places
        if path.suffix in (".list", ".sources") and path.is_file() and SUITE in path.read_text()
    ]


def _environment() -> dict[str, str]:
    handed_on = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(HANDED_ON) or name.lower().startswith(HANDED_ON)
    }
    return handed_on | {"PATH": INSIDE_PATH, "HOME": "/root", "LANG": "C.UTF-8"}


def _wheel_folders() -> list[str]:
    """Folders of ready-made packages that pip is told to look into."""
    named = os.environ.get("PIP_FIND_LINKS", "").split()
    return [folder for folder in named if Path(folder).is_absolute() and Path(folder).is_dir()]


def _hand_on_settings(root: Path) -> None:
    """Name resolution, certificate authorities and pip's settings, as this machine has them."""
    for path in (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/pip.conf"), CA_BUNDLE):
        if path.exists():
            target = root / path.relative_to("/")
            target.unlink(missing_ok=True)
            shutil.copyfile(path, target)
