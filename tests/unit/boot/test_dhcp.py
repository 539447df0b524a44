import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.boot.dhcp import (
    DhcpSettings,
    Sighting,
    check_settings,
    parse_log,
    render_config,
)
from billet_server.errors import ConfigError

MAC = "52:54:00:aa:00:01"
DHCP = DhcpSettings(
    interface="br0",
    server_address="172.22.0.1",
    mode="dhcp",
    range_start="172.22.0.50",
    range_end="172.22.0.99",
)
PROXY = DhcpSettings(interface="br0", server_address="172.22.0.1", mode="proxy")


def test_dhcp_mode_gives_addresses_and_each_architecture_its_loader():
    lines = render_config(DHCP).splitlines()
    for line in (
        "port=0",
        "interface=br0",
        "bind-dynamic",
        "except-interface=lo",
        "enable-tftp=br0",
        "dhcp-range=172.22.0.50,172.22.0.99,255.255.255.0,3600s",
        "dhcp-lease-max=50",
        "dhcp-boot=tag:ipxe,http://172.22.0.1:8080/boot.ipxe,,172.22.0.1",
        "dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe,,172.22.0.1",
        "dhcp-boot=tag:!ipxe,tag:efi,snponly.efi,,172.22.0.1",
        "dhcp-boot=tag:!ipxe,tag:http,http://172.22.0.1:8080/boot/loader/snponly.efi",
    ):
        assert line in lines


def test_without_gateway_and_dns_machines_are_told_of_none():
    lines = render_config(DHCP).splitlines()
    assert "dhcp-option=option:router" in lines
    assert "dhcp-option=option:dns-server" in lines
    lines = render_config(DHCP._replace(gateway="172.22.0.254", dns="9.9.9.9")).splitlines()
    assert "dhcp-option=option:router,172.22.0.254" in lines
    assert "dhcp-option=option:dns-server,9.9.9.9" in lines


def test_proxy_mode_gives_no_addresses():
    lines = render_config(PROXY).splitlines()
    assert [line for line in lines if line.startswith("dhcp-range=")] == [
        "dhcp-range=172.22.0.0,proxy,255.255.255.0"
    ]
    assert not any("authoritative" in line or "175,176" in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (DHCP._replace(interface="br0\nlog-facility=/etc/x"), "not an interface name"),
        (DHCP._replace(interface="-x"), "not an interface name"),
        (DHCP._replace(interface=""), "not an interface name"),
        (DHCP._replace(server_address="172.22.0.1,x"), "server address or netmask"),
        (DHCP._replace(netmask="255.0.255.0"), "server address or netmask"),
        (DHCP._replace(range_start="172.22.1.50"), "not a range inside 172.22.0.0/24"),
        (DHCP._replace(range_start="172.22.0.100"), "not a range inside"),
        (DHCP._replace(range_start=""), "DHCP range, gateway or DNS"),
        (DHCP._replace(range_start="172.22.0.1"), "contains 172.22.0.1, which is in use"),
        (DHCP._replace(gateway="172.22.0.60"), "contains 172.22.0.60, which is in use"),
        (DHCP._replace(gateway="gw.example"), "DHCP range, gateway or DNS"),
        (DHCP._replace(lease_s=60), "below dnsmasq's least"),
        (DHCP._replace(http_port=0), "port 0 is not between"),
        (DHCP._replace(mode="off"), "nothing to configure"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        render_config(settings)


def test_all_faults_at_once():
    settings = DHCP._replace(interface="?", http_port=70000, lease_s=1)
    assert len(check_settings(settings)) == 3
    assert check_settings(settings._replace(mode="off")) == []


def one_of(good: str) -> st.SearchStrategy[str]:
    bad = st.text(max_size=6)
    return st.just(good) | st.tuples(st.just(good), bad).map("".join) | bad


@given(
    st.fixed_dictionaries(
        {
            "interface": one_of("br0"),
            "server_address": one_of("172.22.0.1"),
            "mode": st.sampled_from(["dhcp", "proxy"]),
            "range_start": one_of("172.22.0.50"),
            "range_end": one_of("172.22.0.99"),
            "netmask": one_of("255.255.255.0"),
            "gateway": st.none() | one_of("172.22.0.254"),
            "dns": st.none() | one_of("9.9.9.9"),
        }
    )
)
def test_what_reaches_dnsmasq_is_one_plain_option_a_line(given_settings):
    settings = DHCP._replace(**given_settings)
    try:
        rendered = render_config(settings)
    except ConfigError:
        return
    count = len(render_config(DHCP if settings.mode == "dhcp" else PROXY).splitlines())
    assert len(rendered.splitlines()) == count
    assert re.fullmatch(r"[A-Za-z0-9 .,:/!_=\n-]+", rendered)


@pytest.mark.parametrize(
    ("line", "sighting"),
    [
        (
            f"dnsmasq-dhcp[7]: DHCPDISCOVER(br0) {MAC} ",
            Sighting("dhcp", "asked for an address", MAC),
        ),
        (
            f"dnsmasq-dhcp[7]: DHCPDISCOVER(br0) 172.22.0.60 {MAC} ",
            Sighting("dhcp", "asked for an address", MAC),
        ),
        (
            f"dnsmasq-dhcp[7]: DHCPDISCOVER(br0) {MAC} no address available",
            Sighting("dhcp", "no address is left in the DHCP range", MAC, "", True),
        ),
        (
            f"dnsmasq-dhcp[7]: DHCPACK(br0) 172.22.0.85 {MAC} node-1",
            Sighting("dhcp", "given 172.22.0.85", MAC, "172.22.0.85"),
        ),
        (
            f"dnsmasq-dhcp: 123456 DHCPACK(br0) 172.22.0.85 {MAC}",
            Sighting("dhcp", "given 172.22.0.85", MAC, "172.22.0.85"),
        ),
        (
            f"dnsmasq-dhcp[7]: DHCPNAK(br0) 10.0.0.9 {MAC} wrong network",
            Sighting("dhcp", "DHCP NAK 10.0.0.9 wrong network", MAC, "", True),
        ),
        (
            f"dnsmasq-dhcp[7]: PXE(br0) {MAC} proxy",
            Sighting("dhcp", "offered proxy beside another DHCP server", MAC),
        ),
        (
            f"dnsmasq-dhcp[7]: PXE(br0) 172.22.0.209 {MAC} undionly.kpxe",
            Sighting(
                "dhcp", "offered undionly.kpxe beside another DHCP server", MAC, "172.22.0.209"
            ),
        ),
        (
            "dnsmasq-tftp[7]: sent /run/billet/tftp-1/snponly.efi to 172.22.0.85",
            Sighting("loader", "sent snponly.efi", "", "172.22.0.85"),
        ),
        (
            "dnsmasq-tftp[7]: failed sending /run/billet/tftp-1/snponly.efi to 172.22.0.85",
            Sighting("loader", "could not send snponly.efi by TFTP", "", "172.22.0.85", True),
        ),
        (
            "dnsmasq-tftp[7]: file /run/billet/tftp-1/pxelinux.0 not found for 172.22.0.85",
            Sighting("loader", "could not send pxelinux.0 by TFTP", "", "172.22.0.85", True),
        ),
        (f"dnsmasq-dhcp[7]: DHCPOFFER(br0) 172.22.0.85 {MAC} ", None),
        (f"dnsmasq-dhcp[7]: DHCPREQUEST(br0) 172.22.0.85 {MAC} ", None),
        ("dnsmasq[7]: started, version 2.90 DNS disabled", None),
        ("dnsmasq-dhcp[7]: DHCP, IP range 172.22.0.50 -- 172.22.0.99", None),
        (f"prefix dnsmasq-dhcp[7]: DHCPACK(br0) 172.22.0.85 {MAC}", None),
        ("", None),
    ],
)
def test_what_log_lines_mean(line, sighting):
    assert parse_log(line) == sighting


@given(st.text())
def test_no_log_line_breaks_the_reader(text):
    parse_log(text)
    parse_log(f"dnsmasq-dhcp[1]: {text}")
