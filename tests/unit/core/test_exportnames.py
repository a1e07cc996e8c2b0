"""Keys as paths: every key has one, of its own, inside its directory, and comes back from it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.exportnames import key_of_path, path_of_key

KEYS = st.text(
    st.one_of(st.sampled_from("/.%_=+\0aé😀"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=300,
)


@given(KEYS, st.booleans())
def test_a_path_gives_its_key_again_and_stays_inside(key: str, is_folder: bool) -> None:
    path = path_of_key(key, is_folder=is_folder)
    assert key_of_path(path) == key
    for name in path.split("/"):
        assert name not in {"", ".", ".."}
        assert len(name.encode()) <= 255
        assert not any(ord(character) < 0x20 for character in name)
    assert os.path.normpath(path) == path


@given(st.sets(KEYS, min_size=2, max_size=20))
def test_all_keys_of_a_bucket_fit_into_one_tree(keys: set[str]) -> None:
    files = {
        path_of_key(key, is_folder=any(other.startswith(f"{key}/") for other in keys))
        for key in keys
    }
    assert len(files) == len(keys)
    folders = {path[:at] for path in files for at, c in enumerate(path) if c == "/"}
    assert not files & folders


@pytest.mark.parametrize(
    ("key", "is_folder", "path"),
    [
        ("a/b", False, "a/b"),
        ("a", True, "a%="),
        ("a/", False, "a/%_"),
        ("a/", True, "a/%_%="),
        ("//", False, "%_/%_/%_"),
        ("../x", False, "%2E%2E/x"),
        ("..", True, "%2E%2E%="),
        ("...", False, "..."),
        ("100%", False, "100%25"),
        ("a\x00b\n", False, "a%00b%0A"),
        ("日本/é", False, "日本/é"),
        ("x" * 241, False, "x" * 240 + "%+/x"),
        ("%" * 81, False, "%25" * 80 + "%+/%25"),
    ],
)
def test_examples_of_the_documented_naming(key: str, is_folder: bool, path: str) -> None:
    assert path_of_key(key, is_folder=is_folder) == path
    assert key_of_path(path) == key
