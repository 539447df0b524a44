"""A simulated Redfish BMC for one or several machines: an aiohttp application.

`create_app` serves; TLS is the caller's. ``python -m billet_lab.bmc redfish`` runs one with
machines in memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from billet_lab import redfish_resources as resources
from billet_lab.control import BootTarget, MachineControl
from billet_lab.faults import Faults
from billet_lab.redfish_resources import ROOT, Document, Override
from billet_lab.redfish_sessions import SESSION_TIMEOUT_S, Sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DEAD_LOOK_S = 0.05
_PUBLIC = {("GET", "/redfish"), ("GET", ROOT), ("POST", f"{ROOT}/SessionService/Sessions")}


class _RedfishError(Exception):
    """An answer that is not success."""

    def __init__(self, status: int, message_id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = resources.error(message_id, message)


def create_app(
    machines: Sequence[MachineControl],
    *,
    username: str,
    password: str,
    faults: Callable[[], Faults],
    reset_types: Sequence[str] = resources.RESET_TYPES,
) -> web.Application:
    """The application. ``reset_types`` is what ComputerSystem.Reset offers and accepts."""
    service = _Service(machines, Sessions(username, password), faults, tuple(reset_types))
    app = web.Application(middlewares=[service.answer])
    app.on_shutdown.append(service.stop)
    get, post = app.router.add_get, app.router.add_post
    get("/redfish", service.versions)
    get(ROOT, service.root)
    get(f"{ROOT}/", service.root)
    get(f"{ROOT}/SessionService", service.session_service)
    get(f"{ROOT}/SessionService/Sessions", service.sessions)
    post(f"{ROOT}/SessionService/Sessions", service.log_in)
    app.router.add_delete(f"{ROOT}/SessionService/Sessions/{{number}}", service.log_out)
    for kind in ("Systems", "Chassis", "Managers"):
        get(f"{ROOT}/{kind}", service.collection)
        get(f"{ROOT}/{kind}/{{name}}", service.member)
    app.router.add_patch(f"{ROOT}/Systems/{{name}}", service.patch_system)
    post(f"{ROOT}/Systems/{{name}}/Actions/ComputerSystem.Reset", service.reset)
    get(f"{ROOT}/Systems/{{name}}/EthernetInterfaces", service.interfaces)
    get(f"{ROOT}/Systems/{{name}}/EthernetInterfaces/nic1", service.interface)
    return app


class _Service:
    def __init__(
        self,
        machines: Sequence[MachineControl],
        sessions: Sessions,
        faults: Callable[[], Faults],
        reset_types: tuple[str, ...],
    ) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._sessions, self._faults, self._reset_types = sessions, faults, reset_types
        self._pretended: dict[str, Override] = {}
        self._stopping = False

    async def stop(self, _app: web.Application) -> None:
        """Let go of the requests a dead BMC holds."""
        self._stopping = True

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Faults, authentication, and every error as Redfish words it."""
        await asyncio.sleep(self._faults().bmc_slow_s)
        await self._play_dead(request)
        try:
            self._authenticate(request)
            response = await handler(request)
        except _RedfishError as error:
            response = web.json_response(error.document, status=error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = 'Basic realm="redfish"'
        except web.HTTPException as error:
            text = f"{request.method} {request.path}: {error.reason}"
            names = {404: "ResourceMissingAtURI", 405: "OperationNotAllowed"}
            document = resources.error(names.get(error.status, "GeneralError"), text)
            response = web.json_response(document, status=error.status)
        response.headers["OData-Version"] = "4.0"
        await self._play_dead(request)
        return response

    async def _play_dead(self, request: web.Request) -> None:
        """Hold the request as long as the BMC is dead, then break the connection."""
        if not self._faults().bmc_dead:
            return
        while (  # noqa: ASYNC110 - the switches are read, nobody announces a change
            self._faults().bmc_dead and not self._stopping and request.transport is not None
        ):
            await asyncio.sleep(_DEAD_LOOK_S)
        if request.transport is not None:
            request.transport.abort()

    def _authenticate(self, request: web.Request) -> None:
        if (request.method, request.path.rstrip("/")) in _PUBLIC:
            return
        headers = request.headers
        if not self._sessions.allows(headers.get("X-Auth-Token"), headers.get("Authorization")):
            message = "There is no valid session or credentials for this request."
            raise _RedfishError(401, "NoValidSession", message)

    # service and sessions

    async def versions(self, _request: web.Request) -> web.Response:
        """The protocol versions, DSP0266 6.2."""
        return web.json_response({"v1": f"{ROOT}/"})

    async def root(self, _request: web.Request) -> web.Response:
        """ServiceRoot; its UUID is the first machine's."""
        uuid = next((machine.uuid for machine in self._machines.values()), "")
        return _document(resources.service_root(uuid))

    async def session_service(self, _request: web.Request) -> web.Response:
        """SessionService."""
        return _document(resources.session_service(SESSION_TIMEOUT_S))

    async def sessions(self, _request: web.Request) -> web.Response:
        """The open sessions."""
        path = "SessionService/Sessions"
        return _document(resources.collection("Session", path, self._sessions.numbers()))

    async def log_in(self, request: web.Request) -> web.Response:
        """POST a session (DSP0266 13.3.4); the token comes in X-Auth-Token."""
        body = await _body(request)
        username, password = body.get("UserName"), body.get("Password")
        if not isinstance(username, str) or not isinstance(password, str):
            raise _RedfishError(400, "PropertyMissing", "UserName and Password are required.")
        if not self._sessions.check(username, password):
            message = "The user name or password is incorrect."
            raise _RedfishError(401, "ResourceAtUriUnauthorized", message)
        session = self._sessions.begin()
        if session is None:
            message = "There are too many sessions."
            raise _RedfishError(503, "SessionLimitExceeded", message)
        number, token = session
        document = resources.session(number, username)
        headers = {"X-Auth-Token": token, "Location": document["@odata.id"]}
        return web.json_response(document, status=201, headers=headers)

    async def log_out(self, request: web.Request) -> web.Response:
        """DELETE a session."""
        if not self._sessions.end(request.match_info["number"]):
            raise _missing(request)
        return web.Response(status=204)

    # machines

    async def collection(self, request: web.Request) -> web.Response:
        """Systems, Chassis or Managers."""
        path = request.path.removeprefix(f"{ROOT}/").rstrip("/")
        kind = {"Systems": "ComputerSystem", "Chassis": "Chassis", "Managers": "Manager"}[path]
        return _document(resources.collection(kind, path, list(self._machines)))

    async def member(self, request: web.Request) -> web.Response:
        """One system, chassis or manager."""
        machine = self._machine(request)
        if request.path.startswith(f"{ROOT}/Systems/"):
            return _document(self._system(machine))
        chassis = request.path.startswith(f"{ROOT}/Chassis/")
        return _document(resources.chassis(machine) if chassis else resources.manager(machine))

    async def interfaces(self, request: web.Request) -> web.Response:
        """The system's network interfaces."""
        path = f"Systems/{self._machine(request).name}/EthernetInterfaces"
        return _document(resources.collection("EthernetInterface", path, ["nic1"]))

    async def interface(self, request: web.Request) -> web.Response:
        """The system's one network interface."""
        return _document(resources.ethernet_interface(self._machine(request)))

    async def patch_system(self, request: web.Request) -> web.Response:
        """PATCH Boot: target, enabled, mode; guarded by If-Match where it is sent."""
        machine = self._machine(request)
        now = self._system(machine)
        if request.headers.get("If-Match", "*") not in ("*", resources.etag(now)):
            raise _RedfishError(412, "PreconditionFailed", "The ETag does not match.")
        body = await _body(request)
        boot = body.get("Boot")
        if not isinstance(boot, dict) or len(body) != 1:
            raise _RedfishError(400, "PropertyNotWritable", "Only Boot can be changed.")
        override = self._checked_override(machine, boot)
        if self._faults().ignore_boot_override:
            self._pretended[machine.name] = override
        else:
            self._pretended.pop(machine.name, None)
            target = BootTarget(override.target)
            if override.enabled == "Disabled":
                target = BootTarget.NONE
            await machine.set_boot(target, persistent=override.enabled == "Continuous")
        return _document(self._system(machine))

    def _checked_override(self, machine: MachineControl, boot: Document) -> Override:
        now = self._override(machine)
        target = boot.get("BootSourceOverrideTarget", now.target)
        enabled = boot.get("BootSourceOverrideEnabled", now.enabled)
        mode = boot.get("BootSourceOverrideMode", resources.mode_of(machine))
        known = {"BootSourceOverride" + name for name in ("Target", "Enabled", "Mode")}
        for name in set(boot) - known:
            raise _RedfishError(400, "PropertyUnknown", f"The property {name} is unknown.")
        for name, value, values in (
            ("Target", target, [known_target.value for known_target in BootTarget]),
            ("Enabled", enabled, ["Disabled", "Once", "Continuous"]),
            ("Mode", mode, [resources.mode_of(machine)]),
        ):
            if value not in values:
                message = f"BootSourceOverride{name} {value!r} is not one of {', '.join(values)}."
                raise _RedfishError(400, "PropertyValueNotInList", message)
        return Override(target, enabled)

    async def reset(self, request: web.Request) -> web.Response:
        """ComputerSystem.Reset."""
        machine = self._machine(request)
        kind = (await _body(request)).get("ResetType")
        if kind not in self._reset_types:
            message = f"ResetType {kind!r} is not one of {', '.join(self._reset_types)}."
            raise _RedfishError(400, "ActionParameterNotSupported", message)
        if kind in ("ForceRestart", "PowerCycle") and not machine.powered_on:
            raise _RedfishError(409, "InvalidOperationForSystemState", "The system is off.")
        actions = {
            "On": machine.power_on,
            "ForceOn": machine.power_on,
            "ForceOff": machine.power_off,
            "GracefulShutdown": machine.soft_off,
        }
        await actions.get(str(kind), machine.reset)()
        return web.Response(status=204)

    def _system(self, machine: MachineControl) -> Document:
        powered_on = machine.powered_on != self._faults().wrong_power_state
        return resources.system(
            machine,
            powered_on=powered_on,
            override=self._override(machine),
            reset_types=self._reset_types,
        )

    def _override(self, machine: MachineControl) -> Override:
        return self._pretended.get(machine.name) or resources.override_of(machine)

    def _machine(self, request: web.Request) -> MachineControl:
        machine = self._machines.get(request.match_info["name"])
        if machine is None:
            raise _missing(request)
        return machine


def _missing(request: web.Request) -> _RedfishError:
    message = f"The resource at the URI {request.path} was not found."
    return _RedfishError(404, "ResourceMissingAtURI", message)


def _document(document: Document) -> web.Response:
    return web.json_response(document, headers={"ETag": resources.etag(document)})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _RedfishError(400, "MalformedJSON", "The request body is not a JSON object.")
    return body
