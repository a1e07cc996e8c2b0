"""Every key that is for an operator to turn reaches what it is said to turn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from appliance.daemon.config import Config, GatewaySection, StoreSection
from appliance.daemon.control import spare_policy_of, trim_policy_of
from appliance.daemon.gateway import front_limits_of
from appliance.daemon.store import store_settings_of

STOPS = {"stop_s"}
"""Read by whoever ends the process."""
NOT_THE_FRONT = {"hashing_threads", "single_part_max_bytes", "public_access", "processes"}
"""Read by what is behind the front, and by who starts gateways."""


def _keys(section: type[Any], but: set[str]) -> list[str]:
    return [each.name for each in dataclasses.fields(section) if each.name not in but]


def _with(section: str, key: str) -> Config:
    """The defaults but for one key."""
    config = Config()
    before = getattr(config, section)
    after = dataclasses.replace(before, **{key: getattr(before, key) + 1})
    return dataclasses.replace(config, **{section: after})


@pytest.mark.parametrize("key", _keys(StoreSection, STOPS))
def test_a_key_of_the_store_changes_one_setting(key: str) -> None:
    changed = _with("store", key)
    whose = (store_settings_of, spare_policy_of, trim_policy_of)
    before, after = ([settings(config) for settings in whose] for config in (Config(), changed))
    assert [_differing(*pair) for pair in zip(before, after, strict=True)].count(1) == 1


@pytest.mark.parametrize("key", _keys(GatewaySection, STOPS | NOT_THE_FRONT))
def test_a_key_of_the_gateway_changes_one_limit(key: str) -> None:
    assert _differing(front_limits_of(Config()), front_limits_of(_with("gateway", key))) == 1


def _differing(before: Any, after: Any) -> int:
    names = [each.name for each in dataclasses.fields(before)]
    return sum(getattr(before, name) != getattr(after, name) for name in names)
