"""Times on the command line: 90, 90s, 30m, 2h."""

import re

import click

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType[float]):
    """Seconds, as a number with or without a unit."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        if not parts or "".join(map("".join, parts)) != str(value).strip():
            self.fail(f"{value!r} is no time such as 90s, 30m, 1h30m", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)


DURATION = Duration()
