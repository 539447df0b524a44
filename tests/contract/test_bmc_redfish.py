"""The Redfish driver against services that deviate, and the simulator's own answers."""

import asyncio
import base64
import contextlib

import aiohttp
import pytest
from aiohttp import web

from billet_lab.control import BootTarget, MemoryMachine
from billet_lab.faults import Faults
from billet_lab.redfish_bmc import create_app
from billet_server.bmc.registry import BmcRegistry
from billet_server.core.terms import BootDevice, BootMode, Credentials, PowerState, Secret
from billet_server.errors import BmcAddressError, BmcAuthFailed, BmcRejected, BmcUnsupported
from billet_server.ports import BmcTarget
from contract.bmc_worlds import PACE, PASSWORD

MAC = "52:54:00:00:00:01"
BASIC = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()


class Service:
    """A Redfish service of this process, what it was asked, and drivers for it."""

    def __init__(self, registry, port, requests, bodies):
        self.registry, self.port = registry, port
        self.requests, self.bodies = requests, bodies

    def open(self, path="", password=PASSWORD, username="admin"):
        address = f"redfish+http://127.0.0.1:{self.port}{path}"
        return self.registry.open(BmcTarget(address, Credentials(username, Secret(password))))


@contextlib.asynccontextmanager
async def serving(app, pace=PACE):
    requests, bodies = [], []

    @web.middleware
    async def record(request, handler):
        requests.append(f"{request.method} {request.path}")
        if request.method == "PATCH":
            with contextlib.suppress(ValueError):
                bodies.append(await request.json())
        return await handler(request)

    app.middlewares.insert(0, record)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registry = BmcRegistry(pace=pace, threads=4)
    yield Service(registry, runner.addresses[0][1], requests, bodies)
    await registry.close()
    await runner.cleanup()


def simulator(*machines, **options):
    machines = machines or (MemoryMachine("m1", MAC),)
    options = {"faults": Faults, **options}
    return create_app(machines, username="admin", password=PASSWORD, **options)


async def test_one_of_several_systems_must_be_named_and_the_error_lists_them():
    machines = [MemoryMachine(f"m{number}", MAC) for number in (1, 2)]
    async with serving(simulator(*machines)) as service:
        with pytest.raises(BmcAddressError) as caught:
            await service.open().power_state()
        assert "/redfish/v1/Systems/m1, /redfish/v1/Systems/m2" in str(caught.value)
        await service.open("/redfish/v1/Systems/m2").power_on()
        assert [machine.powered_on for machine in machines] == [False, True]


async def test_a_path_without_a_system_is_rejected_with_the_path():
    async with serving(simulator()) as service:
        with pytest.raises(BmcRejected, match=r"\(/redfish/v1/Systems/none\)"):
            await service.open("/redfish/v1/Systems/none").power_state()


async def test_failed_and_closed_log_ins_leave_no_session_behind():
    async with serving(simulator()) as service:
        with pytest.raises(BmcRejected):
            await service.open("/redfish/v1/Systems/none").power_state()
        bmc = service.open()
        await bmc.power_state()
        await bmc.close()
        url = f"http://127.0.0.1:{service.port}/redfish/v1/SessionService/Sessions"
        headers = {"Authorization": BASIC}
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
            assert (await answer.json())["Members"] == []


async def test_a_wrong_password_is_tried_once_only():
    async with serving(simulator()) as service:
        with pytest.raises(BmcAuthFailed):
            await service.open(password="Wrong-Passw0rd").power_state()
        posts = [request for request in service.requests if request.startswith("POST")]
        assert posts == ["POST /redfish/v1/SessionService/Sessions"]


async def test_a_session_the_bmc_forgot_is_replaced():
    async with serving(simulator()) as service:
        bmc = service.open()
        await bmc.power_state()
        url = f"http://127.0.0.1:{service.port}/redfish/v1/SessionService/Sessions/1"
        headers = {"Authorization": BASIC}
        async with aiohttp.ClientSession() as client, client.delete(url, headers=headers) as answer:
            assert answer.status == 204
        assert await bmc.power_state() is PowerState.OFF


async def test_soft_off_that_is_not_offered_is_unsupported_and_says_what_is():
    app = simulator(reset_types=("On", "ForceOff"))
    async with serving(app) as service:
        bmc = service.open()
        await bmc.power_on()
        with pytest.raises(BmcUnsupported, match="it cannot GracefulShutdown, only ForceOff, On"):
            await bmc.power_off(soft=True)
        assert await bmc.power_state() is PowerState.ON


async def test_a_soft_restart_where_it_is_offered_boots_anew():
    machine = MemoryMachine("m1", MAC)
    app = simulator(machine, reset_types=("On", "GracefulRestart"))
    async with serving(app) as service:
        bmc = service.open()
        await bmc.power_on()
        await bmc.power_cycle(soft=True)
        assert len(machine.boots) == 2
        with pytest.raises(BmcUnsupported, match="it cannot ForceRestart"):
            await bmc.power_cycle()
        assert len(machine.boots) == 2


async def test_a_bmc_without_a_hard_reset_cycles_the_power():
    machine = MemoryMachine("m1", MAC)
    async with serving(simulator(machine, reset_types=("On", "PowerCycle"))) as service:
        await service.open().power_on()
        await service.open().power_cycle()
        assert len(machine.boots) == 2


async def test_power_on_of_a_bmc_that_only_forces():
    app = simulator(reset_types=("ForceOn", "ForceOff", "ForceRestart"))
    async with serving(app) as service:
        await service.open().power_on()
        assert await service.open().power_state() is PowerState.ON


async def test_only_what_changes_is_sent():
    machine = MemoryMachine("m1", MAC)
    async with serving(simulator(machine)) as service:
        bmc = service.open()
        await bmc.set_boot_device(BootDevice.NETWORK)
        await bmc.set_boot_device(BootDevice.DISK, mode=BootMode.LEGACY)
        await bmc.set_boot_device(BootDevice.DISK, persistent=True)
        assert [body["Boot"] for body in service.bodies] == [
            {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"},
            {"BootSourceOverrideTarget": "Hdd"},
            {"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Continuous"},
        ]
        assert machine.boot_override == (BootTarget.HDD, True)


async def test_a_mode_the_machine_has_not_is_rejected_in_the_bmcs_words():
    async with serving(simulator()) as service:
        with pytest.raises(BmcRejected, match="BootSourceOverrideMode 'UEFI' is not one of"):
            await service.open().set_boot_device(BootDevice.NETWORK, mode=BootMode.UEFI)


def system(**fields):
    document = {
        "@odata.id": "/redfish/v1/Systems/1",
        "Id": "1",
        "Name": "odd",
        "PowerState": "Off",
        "Actions": {"#ComputerSystem.Reset": {"target": "/redfish/v1/Systems/1/reset"}},
        "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"},
    }
    return document | fields


def odd_service(document, patch=None, reset=None, auth=None):
    """A service without sessions whose one system is ``document``."""
    app = web.Application()

    async def root(_request):
        return web.json_response(
            {
                "@odata.id": "/redfish/v1/",
                "Id": "R",
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
            }
        )

    async def systems(_request):
        members = [{"@odata.id": "/redfish/v1/Systems/1"}]
        return web.json_response(
            {"@odata.id": "/redfish/v1/Systems", "Name": "S", "Members": members}
        )

    async def one(request):
        if auth and request.headers.get("Authorization") != auth:
            return web.json_response({}, status=401)
        return document() if callable(document) else web.json_response(document)

    async def done(_request):
        return web.Response(status=204)

    app.router.add_get("/redfish/v1/", root)
    app.router.add_get("/redfish/v1/Systems", systems)
    app.router.add_get("/redfish/v1/Systems/1", one)
    app.router.add_patch("/redfish/v1/Systems/1", patch or done)
    app.router.add_post("/redfish/v1/Systems/1/reset", reset or done)
    return app


async def test_a_service_without_sessions_gets_basic_authentication():
    async with serving(odd_service(system(), auth=BASIC)) as service:
        assert await service.open().power_state() is PowerState.OFF
        with pytest.raises(BmcAuthFailed):
            await service.open(password="Wrong-Passw0rd").power_state()


async def test_a_bmc_that_wants_all_boot_properties_together_gets_them():
    boot = {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"}

    async def patch(request):
        if len((await request.json())["Boot"]) == 3:
            return web.Response(status=204)
        return web.json_response({"error": {"message": "incomplete"}}, status=400)

    async with serving(odd_service(system(Boot=boot), patch)) as service:
        await service.open().set_boot_device(BootDevice.NETWORK, mode=BootMode.UEFI)
        assert service.bodies[-1]["Boot"] == {
            "BootSourceOverrideTarget": "Pxe",
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideMode": "UEFI",
        }


async def test_supermicro_always_gets_the_enabled_property():
    boot = {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}
    document = system(Boot=boot, Manufacturer="Supermicro")
    async with serving(odd_service(document)) as service:
        await service.open().set_boot_device(BootDevice.NETWORK)
        assert service.bodies[0]["Boot"]["BootSourceOverrideEnabled"] == "Once"


async def test_a_boot_target_that_is_not_offered_is_unsupported():
    boot = {"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Hdd"]}
    async with serving(odd_service(system(Boot=boot))) as service:
        with pytest.raises(BmcUnsupported, match="it cannot boot Pxe, only Hdd, None"):
            await service.open().set_boot_device(BootDevice.NETWORK)
        assert service.bodies == []


@pytest.mark.parametrize("status", [400, 409])
async def test_a_refusal_is_fine_when_the_state_is_as_wanted(status):
    document = system()

    async def reset(request):
        document["PowerState"] = (await request.json())["ResetType"]
        return web.json_response({"error": {"message": "is so already"}}, status=status)

    async with serving(odd_service(document, reset=reset)) as service:
        await service.open().power_on()


async def test_a_refusal_is_an_error_when_the_state_is_not():
    async def reset(_request):
        return web.json_response({"error": {"message": "in POST"}}, status=409)

    async with serving(odd_service(system(), reset=reset)) as service:
        with pytest.raises(BmcRejected, match="HTTP 409: in POST"):
            await service.open().power_on()


async def test_a_power_state_on_its_way_is_waited_for():
    document = system()

    async def reset(_request):
        document["PowerState"] = "PoweringOn"
        asyncio.get_running_loop().call_later(0.1, document.update, {"PowerState": "On"})
        return web.Response(status=202)

    async with serving(odd_service(document, reset=reset)) as service:
        bmc = service.open()
        await bmc.power_on()
        assert await bmc.power_state() is PowerState.ON


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Id": 1},
        system(Boot="no object"),
        system(Actions=[]),
        lambda: web.Response(text="<html>login</html>", content_type="text/html"),
        lambda: web.Response(status=500, text="oops"),
        lambda: web.Response(status=302, headers={"Location": "/redfish/v1/Systems/1"}),
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_redfish_is_rejected(document):
    async with serving(odd_service(document)) as service:
        with pytest.raises((BmcRejected, BmcUnsupported)) as caught:
            await service.open().power_on()
        assert "through the Redfish BMC at 127.0.0.1" in str(caught.value)


# the simulator


async def ask(service, method, path, *, auth=True, **options):
    """(status, headers, JSON) of a raw request."""
    headers = {**({"Authorization": BASIC} if auth else {}), **options.pop("headers", {})}
    url = f"http://127.0.0.1:{service.port}{path}"
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, url, headers=headers, **options) as answer,
    ):
        body = await answer.json() if answer.content_type == "application/json" else None
        return answer.status, answer.headers, body


SYSTEM = "/redfish/v1/Systems/m1"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "message_id"),
    [
        ("GET", SYSTEM, {"auth": False}, 401, "NoValidSession"),
        ("GET", SYSTEM, {"auth": False, "headers": {"X-Auth-Token": "x"}}, 401, "NoValidSession"),
        ("GET", "/redfish/v1/Systems/none", {}, 404, "ResourceMissingAtURI"),
        ("GET", "/redfish/v1/Nothing", {}, 404, "ResourceMissingAtURI"),
        ("PUT", SYSTEM, {}, 405, "OperationNotAllowed"),
        ("PATCH", SYSTEM, {"data": "no JSON"}, 400, "MalformedJSON"),
        ("PATCH", SYSTEM, {"json": {"PowerState": "On"}}, 400, "PropertyNotWritable"),
        ("PATCH", SYSTEM, {"json": {"Boot": {"BootSourceOverrideTarget": "Moon"}}},
         400, "PropertyValueNotInList"),
        ("PATCH", SYSTEM, {"json": {"Boot": {"Shoe": 1}}}, 400, "PropertyUnknown"),
        ("PATCH", SYSTEM, {"json": {"Boot": {}}, "headers": {"If-Match": '"old"'}},
         412, "PreconditionFailed"),
        ("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"json": {"ResetType": "Kick"}},
         400, "ActionParameterNotSupported"),
        ("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"json": {"ResetType": "ForceRestart"}},
         409, "InvalidOperationForSystemState"),
        ("POST", "/redfish/v1/SessionService/Sessions",
         {"auth": False, "json": {"UserName": "admin", "Password": "no"}},
         401, "ResourceAtUriUnauthorized"),
        ("POST", "/redfish/v1/SessionService/Sessions", {"json": {}}, 400, "PropertyMissing"),
        ("DELETE", "/redfish/v1/SessionService/Sessions/99", {}, 404, "ResourceMissingAtURI"),
    ],
)  # fmt: skip
async def test_errors_have_a_body_as_redfish_words_them(method, path, options, status, message_id):
    async with serving(simulator()) as service:
        answered, _, body = await ask(service, method, path, **options)
        assert answered == status
        entry = body["error"]["@Message.ExtendedInfo"][0]
        assert entry["MessageId"].endswith(f".{message_id}")
        assert entry["Message"]


async def test_entity_tags_change_with_the_content_and_guard_changes():
    async with serving(simulator()) as service:
        _, before, _ = await ask(service, "GET", SYSTEM)
        change = {"json": {"Boot": {"BootSourceOverrideTarget": "Pxe",
                                    "BootSourceOverrideEnabled": "Once"}},
                  "headers": {"If-Match": before["ETag"]}}  # fmt: skip
        assert (await ask(service, "PATCH", SYSTEM, **change))[0] == 200
        assert (await ask(service, "PATCH", SYSTEM, **change))[0] == 412


async def test_every_link_leads_somewhere():
    async with serving(simulator()) as service:
        seen, waiting = set(), ["/redfish/v1/"]
        while waiting:
            path = waiting.pop()
            seen.add(path)
            status, headers, body = await ask(service, "GET", path)
            assert (status, body["@odata.id"]) == (200, path)
            assert headers["OData-Version"] == "4.0"
            waiting += [link for link in links(body) if link not in seen]
        assert f"{SYSTEM}/EthernetInterfaces/nic1" in seen
        assert "/redfish/v1/Managers/m1" in seen


def links(value):
    if isinstance(value, list):
        return [link for item in value for link in links(item)]
    if isinstance(value, dict):
        own = [value["@odata.id"]] if "@odata.id" in value else []
        return own + [link for item in value.values() for link in links(item)]
    return []
