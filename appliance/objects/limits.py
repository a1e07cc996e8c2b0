"""Every limit of the object layer, by name, with AWS's or the plan's default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEBIBYTE: Final = 1024 * 1024
GIBIBYTE: Final = 1024 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """Read-only settings of one ``ObjectStore``. Sizes in bytes unless the name says otherwise."""

    key_bytes: int = 1024
    metadata_bytes: int = 2048
    tags: int = 10
    bucket_tags: int = 50
    tag_key_characters: int = 128
    tag_value_characters: int = 256
    parts: int = 10_000
    part_min_bytes: int = 5 * MEBIBYTE
    part_max_bytes: int = 5 * GIBIBYTE
    single_part_max_bytes: int = 100_000_000
    copy_source_max_bytes: int = 5 * GIBIBYTE
    object_max_bytes: int = 5 * 1024 * GIBIBYTE
    delete_keys: int = 1000
    list_keys: int = 1000
    list_parts: int = 1000
    list_uploads: int = 1000
    list_buckets: int = 10_000
    buckets_per_account: int = 1000
    acl_grants: int = 100
    bucket_dots_allowed: bool = False
    sweep_records: int = 5_120
    inline_body_bytes: int = 64 * 1024
    piece_bytes: int = 256 * 1024
    bucket_cache_s: float = 1.0
    bucket_cache_entries: int = 4096
