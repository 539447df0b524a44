"""The settings for how long a system may take to shut down, and wait in the ramdisk."""

import pytest

from billet_server.engine.perform import EFFECT_DEADLINE_S
from billet_server.errors import ConfigError
from billet_server.settings import FAST_TRACK_MOST_S, SOFT_OFF_MOST_S, Inputs, check


def test_it_reaches_the_rules():
    assert check(Inputs()).rules.soft_off_s == 180.0
    assert check(Inputs(soft_off_s=30.0)).rules.soft_off_s == 30.0


@pytest.mark.parametrize("seconds", [0.5, 481.0])
def test_what_makes_no_sense_is_refused_by_name(seconds):
    with pytest.raises(ConfigError, match="--soft-off-timeout"):
        check(Inputs(soft_off_s=seconds))


def test_a_hard_off_still_fits_in_after_the_longest_soft_one():
    assert SOFT_OFF_MOST_S + 90 < EFFECT_DEADLINE_S


@pytest.mark.parametrize("seconds", [0.0, 30.0, FAST_TRACK_MOST_S])
def test_the_while_in_the_ramdisk_reaches_the_rules(seconds):
    assert check(Inputs()).rules.fast_track_s == 3600.0
    assert check(Inputs(fast_track_s=seconds)).rules.fast_track_s == seconds


@pytest.mark.parametrize("seconds", [-1.0, FAST_TRACK_MOST_S + 1, float("nan"), float("inf")])
def test_a_while_that_makes_no_sense_is_refused_by_name(seconds):
    with pytest.raises(ConfigError, match="--fast-track-s"):
        check(Inputs(fast_track_s=seconds))
