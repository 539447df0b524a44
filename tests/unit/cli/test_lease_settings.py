"""Settings for several servers on one API."""

import pytest

from billet_server.errors import ConfigError
from billet_server.settings import Inputs, check


def faults(**changes) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        check(Inputs(**changes))
    return caught.value.faults


@pytest.mark.parametrize(
    "text", ["a", "a:", ":1", "a:0", "a:65536", "a b:1", "[::1]:80", "a:1,b:2"]
)
def test_agent_addresses_that_would_not_fit_the_kernel_line(text):
    (fault,) = faults(agent_addresses=("172.22.0.1:8443", text))
    assert repr(text) in fault
    assert "HOST:PORT" in fault


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"identity": "-x"}, "--identity"),
        ({"identity": "a b"}, "--identity"),
        ({"lease_namespace": "Billet"}, "--lease-namespace"),
        ({"lease_duration_s": 2.9}, "--lease-duration"),
        ({"lease_renew_s": 0.0}, "--lease-renew"),
        ({"lease_renew_s": 3.1}, "--lease-renew"),
        ({"lease_duration_s": 5.0, "lease_renew_s": 2.0}, "--lease-renew"),
    ],
)
def test_a_lease_that_could_not_be_kept_is_refused(changes, word):
    (fault,) = faults(**changes)
    assert word in fault


def test_agents_call_the_server_that_booted_them_first():
    given = ("172.22.0.1:8443", "172.22.0.2:8443", "172.22.0.1:8443")
    checked = check(Inputs(address="172.22.0.2", agent_addresses=given))
    assert checked.agent_addresses == ("172.22.0.2:8443", "172.22.0.1:8443")
    assert check(Inputs(address="172.22.0.9")).agent_addresses == ("172.22.0.9:8443",)
    through = check(Inputs(address="172.22.0.9", agent_addresses=("vip:443",)))
    assert through.agent_addresses == ("vip:443",)
