"""What a client may say about an object: checked once, before anything is read of its body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from appliance.core.errors import S3Error
from appliance.core.tagging import check_tags
from appliance.engine.interface import Charge
from appliance.objects.context import BYTES_COUNTER, OBJECTS_COUNTER
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Attributes


def check_attributes(attributes: Attributes, limits: ObjectLimits) -> Attributes:
    """The attributes with checked tags. Raises ``S3Error`` MetadataTooLarge, InvalidTag."""
    size_bytes = sum(
        len(name.encode("utf-8")) + len(value.encode("utf-8", "surrogateescape"))
        for name, value in attributes.metadata.items()
    )
    if size_bytes > limits.metadata_bytes:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            fields={"Size": str(size_bytes), "MaxSizeAllowed": str(limits.metadata_bytes)},
        )
    if not attributes.tags:
        return attributes
    return replace(attributes, tags=limited_tags(attributes.tags, limits))


def limited_tags(tags: Mapping[str, str], limits: ObjectLimits) -> dict[str, str]:
    """The tags, checked. Raises ``S3Error`` InvalidTag."""
    return check_tags(
        tags.items(),
        count_max=limits.tags,
        key_characters_max=limits.tag_key_characters,
        value_characters_max=limits.tag_value_characters,
    )


def charges(bucket: str, *, size_bytes: int = 0, objects: int = 0) -> list[Charge]:
    """What a record of a bucket adds to the contract's and the bucket's counters."""
    suffix = b"/" + bucket.encode("ascii")
    found = []
    for counter, amount in ((BYTES_COUNTER, size_bytes), (OBJECTS_COUNTER, objects)):
        if amount:
            found += [Charge(counter, amount), Charge(counter + suffix, amount)]
    return found
