"""What decisions add to the metrics over a host's life."""

from collections import Counter

import pytest

from billet_server.core.annotations import DETACHED
from billet_server.core.capacity import Seat, Seats
from billet_server.core.figures import FIGURES
from billet_server.core.problems import Fault
from billet_server.core.seen import SecretSeen
from billet_server.core.states import State
from billet_server.core.tally import tally
from core_world import IMAGE, World, spec

HOST = ("metal3", "node01")


class Counted(World):
    """A world whose every step is tallied."""

    def decide(self):
        decision = super().decide()
        found = tally(self.host, decision)
        for name, labels in found.counts:
            assert FIGURES[name].kind == "counter"
            assert len(FIGURES[name].labels) == len(labels), name
            self.counts[(name, *labels)] += 1
        for name, seconds, labels in found.durations:
            assert FIGURES[name].kind == "histogram"
            assert labels == HOST
            assert seconds >= 0
            self.lengths.append((name.split("_")[2], seconds))
        return decision


def counted(**given):
    world = Counted(**given)
    world.counts, world.lengths = Counter(), []
    return world


def test_a_whole_life():
    world = counted()
    world.run(lambda: world.state is State.READY)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.edit(online=True)
    world.run(lambda: world.state is State.READY)
    world.edit(online=False)
    world.run(lambda: world.status.powered_on is False)
    kinds = [kind for kind, _ in world.lengths]
    assert kinds == ["register", "inspect", "provision", "deprovision"]
    assert all(seconds > 0 for _, seconds in world.lengths)
    change = "metal3_provisioning_state_change_total"
    assert world.counts[change, "", "registering"] == 1
    assert world.counts[change, "provisioning", "provisioned"] == 1
    assert world.counts["metal3_host_registration_required_total", *HOST] == 1
    assert world.counts["metal3_operation_power_change_total", *HOST, "off"] >= 1
    assert not [key for key in world.counts if "error" in key[0] or "delayed" in key[0]]


@pytest.mark.parametrize(
    ("secret", "bmc", "name"),
    [
        ("bmc-secret-missing", None, "metal3_credentials_missing_total"),
        ("bmc-secret-malformed", None, "metal3_credentials_invalid_total"),
        (None, "bmc-auth", "metal3_credentials_no_management_access_total"),
        (None, "bmc-unreachable", "metal3_credentials_no_management_access_total"),
    ],
)
def test_credentials_that_do_not_work(secret, bmc, name):
    world = counted()
    if secret:
        world.secret = SecretSeen("", Fault(secret, "no Secret"))
    if bmc:
        world.bmc_fault = Fault(bmc, "refused")
    world.run(lambda: world.status.problem is not None)
    for _ in range(3):
        world.once()
    failures = world.status.error_count
    assert failures == (1 if secret else 2)  # the server's attempts, not its passes
    assert world.counts[name, *HOST] == failures
    assert world.counts["metal3_host_error_total", "registration error"] == failures


def test_a_new_secret_that_works():
    world = counted()
    world.run(lambda: world.state is State.READY)
    assert world.counts["metal3_credentials_updated_total", *HOST] == 0
    world.secret = SecretSeen("2")
    world.run(lambda: world.status.good_credentials.credentials_version == "2")
    assert world.counts["metal3_credentials_updated_total", *HOST] == 1


def test_a_config_drive_without_its_secret():
    world = counted(deploy_fault=Fault("user-data-missing", "no Secret"))
    world.run(lambda: world.state is State.READY)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.status.problem is not None)
    assert world.counts["metal3_host_config_data_error_total", *HOST] == 1
    assert world.counts["metal3_host_error_total", "provisioning error"] == 1


def test_waiting_for_a_place_counts_once_by_what_it_is_for():
    full = Seat(granted=False, position=1, limit=1)
    world = counted()
    world.run(lambda: world.state is State.READY)
    world.seats = Seats(full, full, full)
    world.edit(online=True, image=IMAGE)
    for _ in range(3):
        world.once()
    assert world.counts["metal3_delayed__provisioning_total", *HOST] == 1
    world.seats = Seats()
    world.run(lambda: world.state is State.PROVISIONED)
    world.seats = Seats(full, full, full)
    world.edit(online=True)
    for _ in range(3):
        world.once()
    assert world.counts["metal3_delayed__deprovisioning_total", *HOST] == 1
    assert world.counts["metal3_delayed__provisioning_total", *HOST] == 1


def test_a_host_without_a_bmc_is_unmanaged():
    world = counted(spec=spec(bmc=type(spec().bmc)()))
    for _ in range(4):
        world.once()
    assert world.counts["metal3_host_unmanaged_total", *HOST] == 1


def test_a_deletion_that_could_not_clean():
    world = counted()
    world.run(lambda: world.state is State.READY)
    world.edit(online=True, image=IMAGE)
    world.run(lambda: world.state is State.PROVISIONED)
    world.bmc_fault = Fault("bmc-unreachable", "no answer")
    world.deleting = True
    world.run(lambda: world.gone, seconds=100_000)
    assert world.counts["metal3_delete_without_deprovisioning_total", *HOST] == 1
    assert world.counts["metal3_delete_without_powering_off_total", *HOST] == 1


def test_a_deletion_that_waits_for_a_detached_host_counts_once():
    world = counted()
    world.run(lambda: world.state is State.READY)
    world.annotations[DETACHED] = '{"deleteAction": "delay"}'
    for _ in range(3):
        world.once()
    name = "metal3_delete_delayed_for_detached_total"
    assert world.counts[name, *HOST] == 0
    world.deleting = True
    for _ in range(3):
        world.once()
    assert world.counts[name, *HOST] == 1
    del world.annotations[DETACHED]
    world.run(lambda: world.gone)
    assert world.counts[name, *HOST] == 1
    assert world.counts["metal3_delete_without_powering_off_total", *HOST] == 0
