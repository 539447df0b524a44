import pytest
from hypothesis import given
from hypothesis import strategies as st

from billet_server.bmc.address import parse_address
from billet_server.core.bmcaddress import METAL3_ONLY, SCHEMES, machine_key
from billet_server.errors import BmcAddressError


@pytest.mark.parametrize(
    ("text", "driver", "endpoint"),
    [
        ("ipmi://192.168.111.1", "ipmi", "192.168.111.1:623"),
        ("ipmi://192.168.111.1:6230", "ipmi", "192.168.111.1:6230"),
        ("ipmi://192.168.111.1:6230/", "ipmi", "192.168.111.1:6230"),
        ("IPMI://bmc-7.rack_3.example.", "ipmi", "bmc-7.rack_3.example.:623"),
        ("libvirt://192.168.122.1:6233", "ipmi", "192.168.122.1:6233"),
        ("libvirt://192.168.122.1:6233/", "ipmi", "192.168.122.1:6233"),
        ("192.168.111.1", "ipmi", "192.168.111.1:623"),
        ("192.168.111.1:6230", "ipmi", "192.168.111.1:6230"),
        ("myhost", "ipmi", "myhost:623"),
        ("myhost:6230", "ipmi", "myhost:6230"),
        (" myhost:6230\n", "ipmi", "myhost:6230"),
        ("ipmi:192.168.111.1", "ipmi", "192.168.111.1:623"),
        ("ipmi:192.168.111.1:6230", "ipmi", "192.168.111.1:6230"),
        ("ipmi:myhost", "ipmi", "myhost:623"),
        ("libvirt:myhost:6230", "ipmi", "myhost:6230"),
        ("ipmi://[fd00::7]", "ipmi", "[fd00::7]:623"),
        ("ipmi://[fd00::7]:6230", "ipmi", "[fd00::7]:6230"),
        ("ipmi:[fd00::7]:6230", "ipmi", "[fd00::7]:6230"),
        ("[fd00::7]:6230", "ipmi", "[fd00::7]:6230"),
        ("[fd00::7]", "ipmi", "[fd00::7]:623"),
        ("fd00::7", "ipmi", "[fd00::7]:623"),
        ("redfish://bmc", "redfish", "bmc:443"),
        ("redfish+https://bmc", "redfish", "bmc:443"),
        ("redfish+http://bmc", "redfish", "bmc:80"),
        ("redfish+http://[fd00::7]:8000/", "redfish", "[fd00::7]:8000"),
        ("redfish:bmc:8443", "redfish", "bmc:8443"),
        ("idrac-redfish://bmc/redfish/v1/Systems/System.Embedded.1", "redfish", "bmc:443"),
        ("iDRAC-Redfish+HTTPS://bmc:8443", "redfish", "bmc:8443"),
        ("ilo5-redfish+http://bmc", "redfish", "bmc:80"),
        ("ilo5-redfish:192.0.2.7", "redfish", "192.0.2.7:443"),
    ],
)
def test_addresses_are_read(text, driver, endpoint):
    address = parse_address(text)
    assert (address.driver, address.endpoint) == (driver, endpoint)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("redfish://bmc", ""),
        ("redfish://bmc/", ""),
        ("redfish://bmc/redfish/v1", ""),
        ("redfish://bmc/redfish/v1/", ""),
        ("redfish://bmc/redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
        ("redfish://bmc:8000/redfish/v1/Systems/System.Embedded.1/",
         "/redfish/v1/Systems/System.Embedded.1"),
        ("redfish+http://bmc/redfish/v1/Systems/27946b59-9e44-4fa7-8e91-f3527a1ef094",
         "/redfish/v1/Systems/27946b59-9e44-4fa7-8e91-f3527a1ef094"),
    ],
)  # fmt: skip
def test_system_paths(text, path):
    assert parse_address(text).system_path == path


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redfish://bmc", "https://bmc:443"),
        ("redfish+https://[fd00::7]:1", "https://[fd00::7]:1"),
        ("redfish+http://bmc:8000/redfish/v1/Systems/1", "http://bmc:8000"),
    ],
)
def test_base_urls(text, url):
    assert parse_address(text).base_url == url


@pytest.mark.parametrize("transport", ["", "+http", "+https"])
@pytest.mark.parametrize("name", ["idrac-redfish", "ilo5-redfish"])
def test_metal3s_other_names_of_redfish_mean_the_same(name, transport):
    rest = f"{transport}://bmc/redfish/v1/Systems/1"
    assert parse_address(name + rest) == parse_address("redfish" + rest)
    assert machine_key(name + rest) == machine_key("redfish" + rest)


def test_privilege_level():
    assert parse_address("ipmi://h").privilege_level == "ADMINISTRATOR"
    assert parse_address("ipmi://h:1?privilegelevel=operator").privilege_level == "OPERATOR"
    assert parse_address("ipmi://h/?PrivilegeLevel=USER").privilege_level == "USER"
    assert parse_address("h:623?privilegelevel=OPERATOR").privilege_level == "OPERATOR"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("gopher://bmc", "unknown BMC scheme gopher://"),
        ("foo:bar", "unknown BMC scheme foo://"),
        ("ipmi://", "there is no host"),
        ("ipmi:///path", "there is no host"),
        ("ipmi://a b", "not a host name"),
        ("ipmi://bmc:0", "'0' is not a port"),
        ("ipmi://bmc:65536", "'65536' is not a port"),
        ("ipmi://bmc:abc", "'abc' is not a port"),
        ("ipmi://bmc:٣", "is not a port"),
        ("192.168.0.1:port", "'port' is not a port"),
        ("ipmi://[fd00::7", "an IPv6 address stands in brackets"),
        ("ipmi://[not-v6]:1", "cannot be used"),
        ("ipmi://[fd00::7]x", "is not a port"),
        ("ipmi://bmc/redfish/v1", "has no path"),
        ("ipmi://bmc?privilegelevel=ROOT", "CALLBACK, USER, OPERATOR, ADMINISTRATOR"),
        ("ipmi://bmc?privilege=USER", "?privilege=USER is not"),
        ("redfish://bmc?x=1", "no options"),
        ("redfish://bmc/redfish/v1/../../etc", "not the path"),
        ("redfish://bmc/a b", "not the path"),
        ("redfish://bmc//evil", "not the path"),
    ],
)
def test_bad_addresses_say_why(text, words):
    with pytest.raises(BmcAddressError) as caught:
        parse_address(text)
    assert words in str(caught.value)
    assert "ipmi://, libvirt://, redfish://, redfish+http://, redfish+https://" in str(caught.value)


@pytest.mark.parametrize("scheme", sorted(METAL3_ONLY))
def test_schemes_of_metal3_that_billet_lacks_are_named_as_such(scheme):
    for text in (f"{scheme}://bmc", f"{scheme}:bmc"):
        with pytest.raises(BmcAddressError, match="not supported yet") as caught:
            parse_address(text)
        assert f"{scheme}://" in str(caught.value)


@pytest.mark.parametrize("text", ["ipmi://admin:hunter2@bmc", "redfish://root:hunter2@bmc/x"])
def test_credentials_in_an_address_are_refused_and_not_shown(text):
    with pytest.raises(BmcAddressError, match="belong in the Secret") as caught:
        parse_address(text)
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


@given(st.text(max_size=60) | st.sampled_from(SCHEMES).flatmap(
    lambda scheme: st.text(max_size=40).map(lambda rest: f"{scheme}://{rest}")
))  # fmt: skip
def test_any_text_is_an_address_or_a_bmc_address_error(text):
    try:
        address = parse_address(text)
    except BmcAddressError as error:
        assert str(error)  # noqa: PT017 - both outcomes are fine
    else:
        assert 0 < address.port < 65536
        assert address.host
        assert parse_address(f"{address.scheme}://{address.endpoint}").endpoint == address.endpoint
