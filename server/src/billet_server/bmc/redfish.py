"""A Redfish system through sushy. Everything here blocks: `redfish_driver` runs it in a pool.

sushy's habits are turned down: by default it tries a connection 3 times with 2 s between, a 5xx 10
times with 3 s, falls back to basic authentication after a refused log-in (a second failed
attempt against an account that may lock), and logs out over the network while being collected
as garbage.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sushy
from sushy import auth as sushy_auth
from sushy import connector as sushy_connector
from sushy import exceptions

from billet_server.bmc.address import BmcAddress
from billet_server.bmc.redfish_errors import Attempt, Failure, Reason
from billet_server.core.terms import BootDevice, Credentials, PowerState

POWER_STATES = {
    sushy.PowerState.ON: PowerState.ON,
    sushy.PowerState.OFF: PowerState.OFF,
}
"""PoweringOn, PoweringOff and Paused are neither: UNKNOWN until they have ended."""

T = TypeVar("T")

_TARGETS = {BootDevice.NETWORK: sushy.BootSource.PXE, BootDevice.DISK: sushy.BootSource.HDD}

REASON_OF_EXCEPTION: dict[type[Exception], Reason] = {
    exceptions.SushyError: Reason.FAULT,
    exceptions.ConnectionError: Reason.UNREACHABLE,
    exceptions.MissingAttributeError: Reason.MALFORMED,
    exceptions.MalformedAttributeError: Reason.MALFORMED,
    exceptions.MissingActionError: Reason.UNSUPPORTED,
    exceptions.InvalidParameterValueError: Reason.UNSUPPORTED,
    exceptions.ArchiveParsingError: Reason.MALFORMED,
    exceptions.UnknownDefaultError: Reason.MALFORMED,
    exceptions.ExtensionError: Reason.FAULT,
    exceptions.OEMExtensionNotFoundError: Reason.UNSUPPORTED,
    exceptions.MissingHeaderError: Reason.MALFORMED,
    exceptions.HTTPError: Reason.REFUSED,
    exceptions.BadRequestError: Reason.REFUSED,
    exceptions.ResourceNotFoundError: Reason.NOT_FOUND,
    exceptions.ServerSideError: Reason.SERVER_ERROR,
    exceptions.AccessError: Reason.AUTH,
    exceptions.NotAcceptableError: Reason.REFUSED,
    exceptions.MissingXAuthToken: Reason.MALFORMED,
}
"""Every class of sushy.exceptions; a test compares."""


ResetType = sushy.ResetType


class Reading(NamedTuple):
    """What a system says of itself; sushy's enums, None where it says nothing."""

    power: PowerState
    boot_targets: frozenset[Any]
    boot_enabled: Any
    boot_mode: Any
    manufacturer: str


class _Auth(sushy_auth.SessionAuth):  # type: ignore[misc]
    """A session where the BMC has them, else basic authentication; one log-in attempt."""

    def _do_authenticate(self) -> None:
        root = self._root_resource.json or {}
        if "SessionService" not in root and "Sessions" not in root.get("Links", {}):
            self._use_basic()
            return
        try:
            super()._do_authenticate()
        except (exceptions.AccessError, exceptions.ConnectionError):
            raise
        except exceptions.SushyError:
            self._use_basic()

    def _use_basic(self) -> None:
        self.reset_session_attrs()
        self._connector.set_http_basic_auth(self._username, self._password)

    def can_refresh_session(self) -> bool:
        return self._session_resource_id is not None and bool(super().can_refresh_session())


class _Root(sushy.Sushy):  # type: ignore[misc]
    def __del__(self) -> None:
        """Unlike sushy's, never talk to the BMC from here: this may run in the event loop."""


def trusted_certificates(ca_file: Path | None) -> str | bool:
    """What `verify` means: the given file, else this machine's own store, else certifi's."""
    if ca_file is not None:
        return str(ca_file)
    return ssl.get_default_verify_paths().cafile or True


class RedfishSystem:
    """One system of one Redfish service; logged in on first use. Not for two threads at once."""

    def __init__(
        self,
        address: BmcAddress,
        credentials: Credentials,
        verify: str | bool,
        connect_s: float,
        read_s: float,
    ) -> None:
        self._address, self._credentials, self._verify = address, credentials, verify
        self._connect_s, self._read_s = connect_s, read_s
        self._auth: _Auth | None = None
        self._connector: Any = None
        self._system: Any = None
        self.abandoned = False

    def read(self, attempt: Attempt) -> Reading:
        """The system's present state. Raises BmcError."""
        with self._translated(attempt):
            if self._system is None:
                self._log_in(attempt)
            else:
                self._system.refresh(force=True)
            system = self._system
            boot = system.boot
            return Reading(
                power=POWER_STATES.get(system.power_state, PowerState.UNKNOWN),
                boot_targets=frozenset(system.get_allowed_system_boot_source_values()),
                boot_enabled=boot and boot.enabled,
                boot_mode=boot and boot.mode,
                manufacturer=(system.manufacturer or "").lower(),
            )

    def reset(self, attempt: Attempt, *kinds: Any) -> None:
        """ComputerSystem.Reset with the first of ``kinds`` the system allows. Raises BmcError."""
        with self._translated(attempt):
            allowed = self._system.get_allowed_reset_system_values()
            kind = next((kind for kind in kinds if kind in allowed), None)
            if kind is None:
                words = ", ".join(sorted(value.value for value in allowed))
                failure = Failure(Reason.UNSUPPORTED, f"it cannot {kinds[0].value}, only {words}")
                raise attempt.error(failure)
            self._system.reset_system(kind)

    def set_boot(
        self, attempt: Attempt, device: BootDevice, *, uefi: bool | None, persistent: bool
    ) -> None:
        """Boot override (DSP0268 ComputerSystem Boot); only what changes is sent.

        Many BMCs refuse an unchanged BootSourceOverrideEnabled or a mode they did not ask for,
        others want target, enabled and mode together: the second try sends all. Raises BmcError.
        """
        now = self.read(attempt)
        target = _TARGETS[device]
        if target not in now.boot_targets:
            words = ", ".join(sorted(value.value for value in now.boot_targets))
            failure = Failure(Reason.UNSUPPORTED, f"it cannot boot {target.value}, only {words}")
            raise attempt.error(failure)
        override = sushy.BootSourceOverrideEnabled
        enabled = override.CONTINUOUS if persistent else override.ONCE
        modes = sushy.BootSourceOverrideMode
        mode = now.boot_mode
        if uefi is not None and mode is not None:
            mode = modes.UEFI if uefi else modes.LEGACY
        needs_all = now.manufacturer == "supermicro"
        changed = {
            "enabled": enabled if needs_all or enabled != now.boot_enabled else None,
            "mode": mode if mode != now.boot_mode else None,
        }
        with self._translated(attempt):
            try:
                self._system.set_system_boot_options(target, **changed)
            except (exceptions.BadRequestError, exceptions.HTTPError) as error:
                complete = {"enabled": enabled, "mode": mode}
                if complete == changed or not 400 <= (error.status_code or 0) < 500:
                    raise
                self._system.set_system_boot_options(target, **complete)

    def run(self, work: Callable[["RedfishSystem"], T]) -> T:
        """Do ``work``; log out where nobody has waited for it. Its caller sets ``abandoned``."""
        try:
            return work(self)
        finally:
            if self.abandoned:
                self.close()

    def close(self) -> None:
        """Log out as well as it goes and forget everything."""
        auth, connector = self._auth, self._connector
        self._auth = self._connector = self._system = None
        if auth is not None:
            try:
                auth.close()
            except (exceptions.SushyError, OSError):
                auth.reset_session_attrs()  # a session that cannot be ended ends by itself
        if connector is not None:
            connector.close()

    def _log_in(self, attempt: Attempt) -> None:
        connector = sushy_connector.Connector(
            self._address.base_url,
            verify=self._verify,
            server_side_retries=1,
            server_side_retries_delay=1,
            default_request_timeout=self._read_s,
            connect_timeout=self._connect_s,
        )
        # Proxies, .netrc and REQUESTS_CA_BUNDLE are about the Internet, not the BMC network.
        connector._session.trust_env = False  # noqa: SLF001
        connector._session.max_redirects = 3  # noqa: SLF001
        user, password = self._credentials
        self._connector, self._auth = connector, _Auth(user, password.reveal())
        root = _Root(
            self._address.base_url, auth=self._auth, connector=connector, verify=self._verify
        )
        self._system = root.get_system(self._address.system_path or self._only(root, attempt))

    def _only(self, root: Any, attempt: Attempt) -> str:
        paths = root.get_system_collection().members_identities
        if len(paths) != 1:
            found = ", ".join(paths) or "none"
            text = f"it has {len(paths)} systems ({found})"
            raise attempt.error(Failure(Reason.AMBIGUOUS, text))
        path: str = paths[0]
        return path

    @contextmanager
    def _translated(self, attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except tuple(REASON_OF_EXCEPTION) as error:
            failure = translate(error)
            if failure.reason in (Reason.UNREACHABLE, Reason.AUTH):
                self._forget_session()
            raise attempt.error(failure) from error
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            # a BMC whose JSON is not what the schema says makes sushy stumble like this
            raise attempt.error(Failure(Reason.MALFORMED, repr(error))) from error

        finally:
            if self._system is None:
                self.close()  # half logged in: not kept, and no session left behind

    def _forget_session(self) -> None:
        """Spare a BMC that is gone or refuses us the log-out."""
        self._system = None
        if self._auth is not None and self._auth.can_refresh_session():
            self._auth.reset_session_attrs()


def translate(error: Exception) -> Failure:
    """A sushy exception as Failure, with the BMC's own words and never the request's."""
    reason = REASON_OF_EXCEPTION[type(error)]
    status = getattr(error, "status_code", None)
    if isinstance(error, exceptions.HTTPError):
        words = _extended_words(error)
        return Failure(reason, f"HTTP {status}" + (f": {words}" if words else ""), status or 0)
    if "redirects" in str(error):
        reason = Reason.MALFORMED
    return Failure(reason, str(error))


def _extended_words(error: Any) -> str:
    """The most telling sentence of an error body (DSP0266 8.6)."""
    entries: Any = error.extended_info
    texts = [error.detail]
    if isinstance(entries, list):
        texts += [entry.get("Message") for entry in entries if isinstance(entry, dict)]
    return next((str(text)[:300] for text in texts if text), "")
