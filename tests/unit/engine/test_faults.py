"""What adapters raise, as problems: the right id, and the advice told once."""

import pytest

from billet_server import errors
from billet_server.bmc.address import parse_address
from billet_server.bmc.ipmi_errors import Attempt as IpmiAttempt
from billet_server.bmc.ipmi_errors import Reason as IpmiReason
from billet_server.bmc.ipmi_errors import SessionError
from billet_server.bmc.redfish_errors import Attempt as RedfishAttempt
from billet_server.bmc.redfish_errors import Failure
from billet_server.bmc.redfish_errors import Reason as RedfishReason
from billet_server.core.problems import advice
from billet_server.core.terms import HostKey
from billet_server.engine.faults import fault_of

KEY = HostKey("metal3", "node01")
IPMI = IpmiAttempt(parse_address("ipmi://10.0.0.7:6230"), "root", "switch the machine on")
REDFISH = RedfishAttempt(parse_address("redfish://bmc/redfish/v1/Systems/1"), "root", "read")


@pytest.mark.parametrize(
    "error",
    [
        *(IPMI.session_error(SessionError(reason, "words")) for reason in IpmiReason),
        *(REDFISH.error(Failure(reason, "words")) for reason in RedfishReason),
        IPMI.too_slow(5),
        REDFISH.too_slow(5),
    ],
    ids=lambda error: str(error)[10:90],
)
def test_the_advice_of_a_driver_is_told_once(error):
    fault = fault_of(error, KEY)
    assert fault.message.startswith("metal3/node01: Could not ")
    assert fault.advice
    for sentence in fault.advice.rstrip(".").split(". "):
        assert sentence not in fault.message
    assert f"{fault.message}. {fault.advice}" == f"metal3/node01: {error}"


def test_an_error_without_advice_has_that_of_the_catalogue():
    fault = fault_of(errors.BmcUnreachable("no answer."), KEY)
    assert fault.message == "metal3/node01: no answer"
    assert "check address" in advice(fault)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (errors.BmcPowerStuck("still off"), "power-stuck"),
        (errors.BmcRejected("no"), "bmc-rejected"),
        (errors.BmcAddressError("no"), "bmc-address"),
        (errors.AgentError("gone"), "agent-gone"),
        (errors.BootError("?"), "internal"),
    ],
)
def test_each_error_has_its_problem(error, problem):
    assert fault_of(error, KEY).problem == problem
