"""Fault switches of a lab machine: what can be made to go wrong, at run time, from outside.

`Faults` is frozen. The machine's process holds the current value; its `vm.Vm` and its BMC
simulator get a function that returns it and ask at the moment they need it, so that a switch works
from the next packet, frame or boot on, with no restart.
"""

import math
from collections.abc import Mapping

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The switches; all off by default.

    ``bmc_dead``: the BMC answers nothing. ``bmc_slow_s``: seconds before each BMC answer.
    ``wrong_power_state``: the BMC tells the opposite of the truth.
    ``ignore_boot_override``: the BMC accepts a boot override, the machine boots as it always does.
    ``slow_post_s``: seconds between power-on and the first instruction of each boot.
    ``link_down``: the machine's cable is pulled. ``link_loss_percent`` (0-100) and
    ``link_delay_ms`` (at most; frames leave in bursts) of frames from and to the machine.
    ``disk_write_mib_s``: the disks take no more than that much a second each; 0 is no limit.
    ``disk_errors``: writes to the machine's disks fail with EIO from its next boot on.
    """

    bmc_dead: bool = False
    bmc_slow_s: float = 0
    wrong_power_state: bool = False
    ignore_boot_override: bool = False
    slow_post_s: float = 0
    link_down: bool = False
    link_loss_percent: float = 0
    link_delay_ms: float = 0
    disk_write_mib_s: float = 0
    disk_errors: bool = False


class FaultError(ValueError):
    """A fault setting that names no switch or holds no value fit for it."""


_WORDS = {"true": True, "on": True, "yes": True, "1": True,
          "false": False, "off": False, "no": False, "0": False}  # fmt: skip
_SWITCHES = {field.name: field.type for field in msgspec.structs.fields(Faults)}


def parse_fault(text: str) -> tuple[str, bool | float]:
    """``bmc_dead=on`` or ``slow_post_s=20`` as (switch, value).

    >>> parse_fault("link-loss-percent=5")
    ('link_loss_percent', 5.0)
    """
    key, separator, value = text.partition("=")
    name = key.strip().replace("-", "_")
    if not separator:
        raise FaultError(f"{text!r} is not KEY=VALUE, for example bmc_dead=on or slow_post_s=20")
    if name not in _SWITCHES:
        raise FaultError(f"there is no fault {name!r}; there are {', '.join(_SWITCHES)}")
    word = value.strip().lower()
    if _SWITCHES[name] is bool:
        if word not in _WORDS:
            raise FaultError(f"{name} is a switch: on or off, not {value!r}")
        return name, _WORDS[word]
    return name, _number(name, word)


def _number(name: str, word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        raise FaultError(f"{name} is a number, not {word!r}") from None
    if not math.isfinite(number) or number < 0:
        raise FaultError(f"{name} must be 0 or more, not {word}")
    if name.endswith("_percent") and number > 100:
        raise FaultError(f"{name} is a share: at most 100, not {word}")
    return number


def with_settings(faults: Faults, settings: Mapping[str, bool | float]) -> Faults:
    """``faults`` with these switches set; `FaultError` on the first unfit one.

    Values are checked again: they may come from a control socket instead of `parse_fault`.
    """
    fit = dict(parse_fault(f"{name}={_text(value)}") for name, value in settings.items())
    return msgspec.convert({**msgspec.structs.asdict(faults), **fit}, Faults)


def _text(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
