"""The setting for how long a system may take to shut down."""

import pytest

from billet_server.engine.perform import EFFECT_DEADLINE_S
from billet_server.errors import ConfigError
from billet_server.settings import SOFT_OFF_MOST_S, Inputs, check


def test_it_reaches_the_rules():
    assert check(Inputs()).rules.soft_off_s == 180.0
    assert check(Inputs(soft_off_s=30.0)).rules.soft_off_s == 30.0


@pytest.mark.parametrize("seconds", [0.5, 481.0])
def test_what_makes_no_sense_is_refused_by_name(seconds):
    with pytest.raises(ConfigError, match="--soft-off-timeout"):
        check(Inputs(soft_off_s=seconds))


def test_a_hard_off_still_fits_in_after_the_longest_soft_one():
    assert SOFT_OFF_MOST_S + 90 < EFFECT_DEADLINE_S
