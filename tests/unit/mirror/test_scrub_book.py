"""What is remembered of scrubs: whole, or as good as nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.scrubs import ScrubRun, ScrubState
from appliance.engine.mirror import scrub_book
from appliance.engine.mirror.scrub_book import Page
from appliance.engine.mirror.scrub_tally import Cursor, Tally
from appliance.system.files import DirectoryVolume


class FixedEntropy:
    """Always the same."""

    def token(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"waited_s": -1}', b'{"share": 7}', b'{"cursor": {"blob": "zz"}}'],
)
def test_a_file_that_cannot_be_read_is_a_first_page(tmp_path: Path, content: bytes) -> None:
    (tmp_path / scrub_book.NAME).write_bytes(content)
    volume = DirectoryVolume(tmp_path, "index")
    page = scrub_book.load(volume, FixedEntropy())
    assert page == Page()
    scrub_book.save(volume, page)
    assert scrub_book.load(volume, FixedEntropy()) == page


def test_a_page_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path, "index")
    tally = Tally(began_ns=5, total_bytes=100, done_bytes=40, cursor=Cursor(7, log_done=True))
    tally.of("drive-a").bad_blobs = 3
    run: ScrubRun = tally.report(ScrubState.RUNNING)
    page = Page(12.5, 0.95, paused=True, current=run, cursor=tally.cursor)
    scrub_book.save(volume, page)
    assert scrub_book.load(volume, FixedEntropy()) == page
    again = Tally.resumed(run, page.cursor)
    assert again == replace(tally)
