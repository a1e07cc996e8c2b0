"""The configuration names file, line, key and allowed values when something is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from appliance.core.errors import ConfigError
from appliance.daemon import config as configuration
from appliance.daemon.config import Config, DevelopmentSection, as_toml, load

PROJECT = Path(__file__).resolve().parents[3]


def _load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    file = tmp_path / "appliance.toml"
    file.write_text(text)
    return load(file, environment or {})


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    config = _load(tmp_path, "")
    assert config == Config()
    assert config.gateways >= 1
    assert not config.development.enabled


def test_values_are_read_and_written_back(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        '[service]\nzone = "backup.example.jp"\n[listen]\nhttps = ["[::1]:0", "127.0.0.1:8443"]\n'
        '[gateway]\nprocesses = 3\nidle_s = 30\n[paths]\nstate = "/srv/a \\"b\\""\n',
    )
    assert config.service.zone == "backup.example.jp"
    assert config.listen.https == ("[::1]:0", "127.0.0.1:8443")
    assert config.gateways == 3
    assert config.gateway.idle_s == 30.0
    assert config.paths.state == Path('/srv/a "b"')
    assert _load(tmp_path, as_toml(config)) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[service]\nzone = 5\n", ["line 2", "service.zone", "5 is not text", "lower-case DNS"]),
        ('\n\n[service]\nregion = "EU!"\n', ["line 4", "service.region", "allowed: 1 to 32"]),
        ("[gateway]\nproceses = 1\n", ["line 2", "gateway.proceses", "did you mean processes?"]),
        ("[gateway]\nprocesses = 1000\n", ["line 2", "allowed: 0 to 64"]),
        ("[gateway]\nprocesses = true\n", ["True is not a whole number"]),
        ("[gateway]\nxyz = 1\n", ["unknown key; known are body_wait_s"]),
        ("[gatewey]\n", ["line 1", "unknown section gatewey; sections are service"]),
        ("zone = 1\n", ["line 1", "key zone", "outside of any section; sections are service"]),
        ('\nservice = "x"\n', ["line 2", "expected a section of keys"]),
        ("[[service]]\n", ["line 1", "expected a section of keys"]),
        ("\ngateway.processes = 99\n", ["line 2", "gateway.processes", "allowed: 0 to 64"]),
        ('["gateway"]\n"processes" = 99\n', ["line 2", "gateway.processes"]),
        ('[log]\n[service.more]\nzone = "x"\n', ["line 2", "service.more", "unknown key"]),
        ("[service\n", ["line 1", "not TOML"]),
        ('[service]\nzone = "a"\nzone = "b"\n', ["line 3", "not TOML"]),
        ('[listen]\nhttps = "x"\n', ["'x' is not a list", "HOST:PORT"]),
        ('[listen]\nhttps = ["nowhere"]\n', ["line 2", "listen.https", "HOST:PORT"]),
        ('[listen]\nhttps = ["127.0.0.1:70000"]\n', ["is not allowed"]),
        ('[listen]\nhttps = ["999.1.1.1:443"]\n', ["line 2", "HOST:PORT"]),
        ("[listen]\nhttps = []\n", ["is not allowed"]),
        ('[paths]\nstate = "relative"\n', ["an absolute path"]),
        ('[paths]\nstate = ""\n', ["is not a path"]),
        ('[paths]\nstate = "/a\\u0000b"\n', ["is not a path"]),
        ('[log]\nlevel = "loud"\n', ["allowed: debug, info, warning, error"]),
        ('[development]\ndrives = ["/a"]\n', ["none or two absolute paths"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert str(tmp_path / "appliance.toml") in str(caught.value)
    for part in says:
        assert part in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "missing.toml", {})
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path, {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "binary", {})


def test_the_environment_overrides_in_development_only(tmp_path: Path) -> None:
    environment = {
        "APPLIANCE_GATEWAY_PROCESSES": "5",
        "APPLIANCE_GATEWAY_IDLE_S": "7.5",
        "APPLIANCE_LISTEN_HTTPS": "127.0.0.1:1, 127.0.0.1:2",
        "APPLIANCE_SERVICE_ZONE": "other.example",
        "APPLIANCE_STATE": "ignored",
    }
    assert _load(tmp_path, "", environment) == Config()
    config = _load(tmp_path, "[development]\nenabled = true\n", environment)
    assert config.gateways == 5
    assert config.gateway.idle_s == 7.5
    assert config.listen.https == ("127.0.0.1:1", "127.0.0.1:2")
    assert config.service.zone == "other.example"
    assert config.development == DevelopmentSection(enabled=True)
    with pytest.raises(ConfigError, match=r"GATEWAY_PROCESSES, key gateway\.processes"):
        _load(tmp_path, "[development]\nenabled = true\n", {"APPLIANCE_GATEWAY_PROCESSES": "many"})
    no = _load(tmp_path, "[development]\nenabled = true\n", {"APPLIANCE_DEVELOPMENT_ENABLED": "no"})
    assert not no.development.enabled


def test_every_key_is_documented() -> None:
    text = (PROJECT / "docs/configuration.md").read_text()
    assert configuration.documentation() in text, (
        "docs/configuration.md is out of date; run `python -m appliance.daemon documentation`"
    )
    for name, kind in configuration.section_kinds().items():
        assert f"`[{name}]`" in text
        for field in dataclasses.fields(kind):
            assert len(field.metadata["doc"]) > 10
