"""The kernel line: what is read, and every fault at once."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_agent.__main__ import EXIT_SETTINGS, main
from billet_agent.settings import (
    Settings,
    SettingsError,
    link_url,
    parse_settings,
    read_cmdline,
)

HEX = "ab" * 32
LINE = (
    "initrd=initramfs console=ttyS0 billet.server=192.0.2.1:8443 "
    f"billet.ca=sha256:{HEX.upper()} billet.ca-url=http://192.0.2.1:8080/ca.pem "
    "billet.token=abc.def-1 BOOTIF=01-52-54-00-AA-bb-cc quiet\n"
)


def test_a_whole_line() -> None:
    settings = parse_settings(read_cmdline(LINE))
    assert link_url(settings.server) == "wss://192.0.2.1:8443/agent/v1/link"
    assert settings.ca_sha256 == HEX
    assert settings.ca_url == "http://192.0.2.1:8080/ca.pem"
    assert settings.token == "abc.def-1"
    assert settings.boot_mac == "52:54:00:aa:bb:cc"
    assert "abc.def-1" not in repr(settings)


def test_names_and_ipv6() -> None:
    values = read_cmdline(LINE)
    named = parse_settings({**values, "billet.server": "billet.example:443"})
    assert link_url(named.server) == "wss://billet.example:443/agent/v1/link"
    numbered = parse_settings({**values, "billet.server": "[2001:db8::1]:8443"})
    assert link_url(numbered.server) == "wss://[2001:db8::1]:8443/agent/v1/link"


def test_several_servers_each_with_its_ca() -> None:
    values = read_cmdline(LINE)
    both = {
        "billet.server": "192.0.2.1:8443,192.0.2.2:8443,192.0.2.1:8443",
        "billet.ca-url": "http://192.0.2.1:8080/ca.pem,http://192.0.2.2:8080/ca.pem",
    }
    settings = parse_settings(values | both)
    assert [str(server) for server in settings.servers] == ["192.0.2.1:8443", "192.0.2.2:8443"]
    assert settings.ca_url_of(1) == "http://192.0.2.2:8080/ca.pem"
    one_url = parse_settings(values | {"billet.server": both["billet.server"]})
    assert one_url.ca_url_of(1) == "http://192.0.2.1:8080/ca.pem"


@pytest.mark.parametrize("key", ["billet.server", "billet.ca-url"])
def test_a_list_with_a_wrong_one_in_it_is_refused(key: str) -> None:
    values = read_cmdline(LINE)
    with pytest.raises(SettingsError) as caught:
        parse_settings({**values, key: f"{values[key]},nonsense"})
    assert len(caught.value.faults) == 1
    assert "nonsense" in caught.value.faults[0]


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(read_cmdline("quiet"))
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("billet.server", "host"),
        ("billet.server", "host:0"),
        ("billet.server", "host:99999"),
        ("billet.server", "user@host:1"),
        ("billet.server", "host:1/path"),
        ("billet.ca", HEX),
        ("billet.ca", "sha1:" + HEX),
        ("billet.ca", "sha256:" + HEX[:-1]),
        ("billet.ca-url", "https://host/ca.pem"),
        ("billet.ca-url", "file:///ca.pem"),
        ("billet.ca-url", "http:///ca.pem"),
        ("BOOTIF", "01-02"),
    ],
)
def test_wrong_values(key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings({**read_cmdline(LINE), key: value})
    assert len(caught.value.faults) == 1
    assert value in caught.value.faults[0]


@given(st.dictionaries(st.sampled_from([*read_cmdline(LINE)]), st.text()))
def test_nothing_but_settings_or_faults(changes: dict[str, str]) -> None:
    with contextlib.suppress(SettingsError):
        assert isinstance(parse_settings({**read_cmdline(LINE), **changes}), Settings)


def test_main_names_the_faults_and_ends(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    line = tmp_path_factory.mktemp("proc") / "cmdline"
    line.write_text("quiet billet.server=nonsense")
    assert main(["--cmdline", str(line), "--set", "billet.token=x"]) == EXIT_SETTINGS
    shown = capsys.readouterr().out
    assert "billet.server=nonsense is not HOST:PORT" in shown
    assert "billet.ca is missing" in shown
    assert "token" not in shown
    assert main(["--cmdline", str(line / "nowhere")]) == EXIT_SETTINGS
