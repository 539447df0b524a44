"""`billet power HOST... on|off|status`: ``spec.online``, and what the BMC last said."""

import asyncio
import json
from typing import Any

import click

from billet_server.cli import goals, verbs
from billet_server.cli.applying import Manner, Order, carry_out, manner_options
from billet_server.cli.choosing import find_hosts
from billet_server.core.host import Host, parse_host

WORDS = ("on", "off", "status")
_POWER = {True: "on", False: "off", None: "unknown"}


class PowerCommand(click.Command):
    """A command whose last word (or first, as people type it too) is what to do."""

    more_words = WORDS

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show where the word stands."""
        return [*super().collect_usage_pieces(ctx), "on|off|status"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the word among the hosts."""
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:
            return rest
        words = list(ctx.params["hosts"])
        place = next((at for at in (-1, 0) if words and words[at] in WORDS), None)
        if place is None:
            hint = "; to switch off and on: billet reboot" if "cycle" in words else ""
            raise click.UsageError(f"say on, off or status after the hosts{hint}", ctx)
        ctx.params["wanted"] = words.pop(place)
        ctx.params["hosts"] = tuple(words)
        return rest


@click.command(cls=PowerCommand, short_help="switch on or off, or say what the power is")
@manner_options()
def power(wanted: str, manner: Manner) -> int:
    """Set spec.online, which is the machine's power whenever it is at rest; or show the power.

    HOST... ends with on, off or status. A running system is asked to shut down first.

    \b
    Examples:
      billet power node01 on --wait
      billet power node01 node02 off
      billet power -A status
    """
    if wanted == "status":
        return asyncio.run(_show(manner))
    on = wanted == "on"
    order = Order(lambda host: verbs.power(host, on=on), goals.powered(on=on))
    return asyncio.run(carry_out(order, manner))


async def _show(manner: Manner) -> int:
    api, usual = manner.connection.open()
    try:
        found = await find_hosts(api, manner.choice, manner.connection.namespace, usual)
    finally:
        await api.close()
    facts = [power_facts(parse_host(obj)) for obj in found]
    if manner.output == "json":
        click.echo(json.dumps(facts, indent=2))
        return 0
    for fact in facts:
        word = _POWER[fact["poweredOn"]]
        differs = fact["poweredOn"] is not fact["online"]
        wanted = f"  (wanted at rest: {_POWER[fact['online']]})" if differs else ""
        held = f"  (held off by {', '.join(fact['heldOffBy'])})" if fact["heldOffBy"] else ""
        click.echo(f"{fact['namespace']}/{fact['name']}  {word}{wanted}{held}")
    return 0


def power_facts(host: Host) -> dict[str, Any]:
    """Return what is known of a host's power, for ``-o json``."""
    return {
        "namespace": host.key.namespace,
        "name": host.key.name,
        "poweredOn": host.status.powered_on,
        "online": host.spec.online,
        "heldOffBy": goals.reboot_keys(host),
    }
