import msgspec
import pytest

from billet_lab.faults import FaultError, Faults, parse_fault, with_settings


def test_all_switches_are_off_by_default():
    assert not any(msgspec.structs.astuple(Faults()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bmc_dead=on", ("bmc_dead", True)),
        ("bmc-dead=false", ("bmc_dead", False)),
        ("wrong_power_state=YES", ("wrong_power_state", True)),
        ("slow_post_s=2.5", ("slow_post_s", 2.5)),
        ("link_loss_percent=100", ("link_loss_percent", 100.0)),
        (" link-delay-ms = 30 ", ("link_delay_ms", 30.0)),
    ],
)
def test_settings_parse(text, expected):
    assert parse_fault(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bmc_dead", "KEY=VALUE"),
        ("bmc_deaf=on", "there are bmc_dead"),
        ("bmc_dead=maybe", "on or off"),
        ("slow_post_s=long", "number"),
        ("slow_post_s=-1", "0 or more"),
        ("slow_post_s=nan", "0 or more"),
        ("link_loss_percent=101", "at most 100"),
    ],
)
def test_unfit_settings_say_what_is_fit(text, words):
    with pytest.raises(FaultError, match=words):
        parse_fault(text)


def test_settings_give_a_new_value_and_leave_the_other_switches():
    faults = Faults(bmc_slow_s=1)
    assert with_settings(faults, {"bmc_dead": True}) == Faults(bmc_dead=True, bmc_slow_s=1)
    assert faults == Faults(bmc_slow_s=1)


@pytest.mark.parametrize("settings", [{"slow_post_s": -3}, {"bmc_dead": 2}, {"nonsense": True}])
def test_unfit_settings_are_refused_whoever_sends_them(settings):
    with pytest.raises(FaultError):
        with_settings(Faults(), settings)
