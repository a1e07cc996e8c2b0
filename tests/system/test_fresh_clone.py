"""From nothing to a served object: a minimal Debian, a clone, ``make run``, and a pasted line."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from tests.development import PROJECT
from tests.system.minimal_root import MinimalRoot, minimal_root

SERVING_WITHIN_S: Final = 600
CLIENT_WITHIN_S: Final = 300
PASTED_LINE: Final = re.compile(r"^\s*((?:\w+=\S+ )+aws .*\bs3 .*)$")
AWSCLI_LOCK: Final = re.compile(r"^awscli==(\S+)", re.MULTILINE)


@pytest.mark.fresh
@pytest.mark.timeout(1500)
@pytest.mark.needs("mmdebstrap", "unshare", "git")
def test_make_run_alone_serves_in_a_fresh_clone(tmp_path: Path) -> None:
    with minimal_root(tmp_path) as root:
        clone = root.path / "srv" / "appliance"
        subprocess.run(["git", "clone", "-q", f"file://{PROJECT}", clone], check=True)
        with root.start("cd /srv/appliance && exec make run") as service:
            lines: queue.Queue[str | None] = queue.Queue()
            reader = threading.Thread(target=_pass_on, args=(service, lines))
            reader.start()
            try:
                line = _aws_line(lines)
                _install_aws_cli(root)
                print(f"pasting: {line}")
                listed = root.run(f"export PATH=/opt/client/bin:$PATH\n{line}", timeout_s=60)
                print(listed)
                assert " main-" in listed  # the first account's bucket
            finally:
                service.kill()
                reader.join()


def _aws_line(lines: queue.Queue[str | None]) -> str:
    """The first line of the service's output that a person would paste."""
    deadline = time.monotonic() + SERVING_WITHIN_S
    while (text := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
        if found := PASTED_LINE.match(text.rstrip()):
            return found.group(1)
    raise AssertionError("make run ended before it served; its output is above")


def _pass_on(service: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Read on to the end, so that the service never waits for its reader."""
    assert service.stdout is not None
    for text in service.stdout:
        print(text, end="")
        lines.put(text)
    lines.put(None)


def _install_aws_cli(root: MinimalRoot) -> None:
    """A customer's tool, kept apart from what the service installed for itself."""
    locked = AWSCLI_LOCK.search((PROJECT / "requirements-dev.lock").read_text())
    assert locked is not None
    root.run(
        f"python3 -m venv /opt/client && /opt/client/bin/pip install -q awscli=={locked.group(1)}",
        timeout_s=CLIENT_WITHIN_S,
    )
