"""Which MAC has an IPv4 address: from DHCP answers, else from the kernel's ARP table."""

from collections import OrderedDict
from pathlib import Path

MOST = 16384
_INCOMPLETE = "00:00:00:00:00:00"


class Neighbours:
    """Addresses learnt, the latest ``MOST`` of them; ``arp`` is in Linux' /proc/net/arp form."""

    def __init__(self, arp: Path = Path("/proc/self/net/arp")) -> None:
        self._arp = arp
        self._macs: OrderedDict[str, str] = OrderedDict()

    def learn(self, address: str, mac: str) -> None:
        """Remember that ``address`` was given to ``mac``."""
        self._macs.pop(address, None)
        self._macs[address] = mac
        if len(self._macs) > MOST:
            self._macs.popitem(last=False)

    def mac(self, address: str) -> str:
        """Return the MAC of an address, or "" when nobody knows it."""
        known = self._macs.get(address)
        return known if known is not None else self._ask_kernel(address)

    def _ask_kernel(self, address: str) -> str:
        try:
            rows = self._arp.read_text().splitlines()[1:]
        except OSError:
            return ""
        for row in rows:
            fields = row.split()
            if len(fields) >= 4 and fields[0] == address and fields[3] != _INCOMPLETE:
                return fields[3].lower()
        return ""
