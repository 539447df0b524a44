import msgspec
import pytest

from billet_lab.faults import FaultError, Faults, apply_settings, parse_fault


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


def test_settings_are_applied_in_place_and_only_changes_are_named():
    faults = Faults(bmc_slow_s=1)
    assert apply_settings(faults, {"bmc_dead": True, "bmc_slow_s": 1}) == {"bmc_dead"}
    assert faults == Faults(bmc_dead=True, bmc_slow_s=1)


def test_one_unfit_setting_applies_none():
    faults = Faults()
    with pytest.raises(FaultError):
        apply_settings(faults, {"bmc_dead": True, "slow_post_s": -3})
    assert faults == Faults()
