"""`ports.Bmcs`: one driver per target, one lane per BMC, one pool for what blocks."""

import asyncio
import ipaddress
import weakref
from pathlib import Path

from billet_server.bmc.address import BmcAddress, parse_address
from billet_server.bmc.blocking import BlockingPool
from billet_server.bmc.ipmi_driver import IpmiBmc
from billet_server.bmc.pacing import Pace, Permit, always
from billet_server.bmc.redfish import trusted_certificates
from billet_server.bmc.redfish_driver import RedfishBmc
from billet_server.ports import Bmc, BmcTarget

Driver = IpmiBmc | RedfishBmc


class BmcRegistry:
    """Opens BMCs. Needs a running loop; use it from that loop only.

    A driver lives as long as somebody holds it or its session is open (``pace.idle_s`` after the
    last command); other credentials make another driver. Lanes outlive drivers the same way.
    ``permit`` is asked before each command (see `pacing.Permit`).
    """

    def __init__(
        self,
        *,
        pace: Pace | None = None,
        threads: int = 32,
        ca_file: Path | None = None,
        permit: Permit = always,
    ) -> None:
        self._pace, self._permit = pace or Pace(), permit
        self._verify = trusted_certificates(ca_file)
        self._pool = BlockingPool(threads)
        self._lanes: weakref.WeakValueDictionary[tuple[str, int], asyncio.Lock]
        self._lanes = weakref.WeakValueDictionary()
        self._drivers: weakref.WeakValueDictionary[object, Driver]
        self._drivers = weakref.WeakValueDictionary()

    def open(self, target: BmcTarget) -> Bmc:
        """Return the target's driver; nothing is sent. Raises BmcAddressError."""
        address = parse_address(target.address)
        key = (address, target.credentials, target.verify_certificate)
        driver = self._drivers.get(key)
        if driver is None:
            driver = self._drivers[key] = self._build(address, target)
        return driver

    async def close(self) -> None:
        """Log out everywhere; a BMC that does not answer is not waited for longer than usual."""
        drivers = list(self._drivers.values())
        await asyncio.gather(*(driver.close() for driver in drivers))

    def _build(self, address: BmcAddress, target: BmcTarget) -> Driver:
        lane = self._lanes.setdefault((_one_spelling(address.host), address.port), asyncio.Lock())
        if address.driver == "ipmi":
            return IpmiBmc(address, target.credentials, lane, self._pace, self._permit)
        verify = self._verify if target.verify_certificate else False
        return RedfishBmc(
            address,
            target.credentials,
            verify=verify,
            lane=lane,
            pool=self._pool,
            pace=self._pace,
            permit=self._permit,
        )


def _one_spelling(host: str) -> str:
    """Return a host as all of its spellings: case, a dot at the end, zeros in IPv6."""
    name = host.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name
