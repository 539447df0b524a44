"""Two in-memory APIs with hosts, a client that dies at any call, and the rule of the move."""

from billet_server.core.annotations import MOVE, PAUSED
from billet_server.core.host import FINALIZER
from billet_server.memory.kube import MemoryKube
from billet_server.move.mover import Mover
from billet_server.move.survey import survey
from billet_server.ports import BARE_METAL_HOST, HARDWARE_DATA, SECRET

IMAGE = {"url": "http://192.0.2.1/a.qcow2", "checksum": "0" * 32}
HARDWARE = {"cpu": {"arch": "x86_64", "count": 4}, "ramMebibytes": 1024}


class Died(Exception):
    """The moving process was killed."""


class Dying:
    """An API whose user dies at its n-th write, before it (even) or just after it (odd)."""

    def __init__(self, api, fuse, check):
        self._api, self._fuse, self._check = api, fuse, check

    def __getattr__(self, name):
        method = getattr(self._api, name)
        if name not in ("create", "patch", "replace", "delete"):
            return method

        async def write(*args, **kwargs):
            self._fuse.burn()
            try:
                return await method(*args, **kwargs)
            finally:
                await self._check()
                self._fuse.burn()

        return write


class Fuse:
    def __init__(self, length):
        self.left = length

    def burn(self):
        if self.left == 0:
            raise Died
        self.left -= 1


class Worlds:
    """A source with hosts and an empty target."""

    def __init__(self):
        self.here, self.there = (MemoryKube(namespaces=("default", "metal3")) for _ in range(2))
        self.said = []

    async def host(self, name="node01", *, secrets=("bmc", "user-data"), annotations=None,
                   state="provisioned", api=None, **status):  # fmt: skip
        api = api or self.here
        number = len((await api.list(BARE_METAL_HOST)).items) + 1
        credentials, *more = secrets
        obj = await api.create(BARE_METAL_HOST, {
            "metadata": {"namespace": "metal3", "name": name, "finalizers": [FINALIZER],
                         "labels": {"rack": "a"}, "annotations": annotations or {}},
            "spec": {
                "bmc": {"address": f"ipmi://192.0.2.{number}", "credentialsName": credentials},
                "bootMACAddress": f"00:c2:fc:3b:e1:{number:02x}", "online": True, "image": IMAGE,
                **({"userData": {"name": more[0], "namespace": "metal3"}} if more else {}),
            },
        })  # fmt: skip
        owner = {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "name": name,
                 "uid": obj["metadata"]["uid"]}  # fmt: skip
        for secret in set(secrets) - {name for _, name in await self.all(api)}:
            api.put_secret("metal3", secret, userData=f"of {secret}")
        made = await api.get(SECRET, "metal3", credentials)
        await api.create(HARDWARE_DATA, {
            "metadata": {"namespace": "metal3", "name": name, "ownerReferences": [owner]},
            "spec": {"hardware": HARDWARE},
        })  # fmt: skip
        good = {"credentials": {"name": credentials, "namespace": "metal3"},
                "credentialsVersion": made["metadata"]["resourceVersion"]}  # fmt: skip
        full = {
            "operationalStatus": "OK", "poweredOn": True, "errorCount": 0, "hardware": HARDWARE,
            "lastUpdated": "2026-01-01T00:00:00Z", "goodCredentials": good,
            "provisioning": {"state": state, "ID": "", "image": IMAGE},
        } | status  # fmt: skip
        return await api.patch(
            BARE_METAL_HOST, "metal3", name, {"status": full}, subresource="status"
        )

    async def survey(self, back=False):
        source, target = (self.there, self.here) if back else (self.here, self.there)
        return await survey((await source.list(BARE_METAL_HOST)).items, source, target)

    async def run(self, fuse=None, *, back=False, undo=False, check=True):
        """Run the move as the command does; Died when the fuse is short."""
        source, target = (self.there, self.here) if back else (self.here, self.there)
        items = await self.survey(back)
        assert not [item.blockers for item in items if item.blockers and not undo], items
        fuse = fuse or Fuse(-1)
        watch = self.never_both if check else self.nothing
        mover = Mover(
            Dying(source, fuse, watch), Dying(target, fuse, watch),
            lambda key, text: self.said.append((key.name, text)),
        )  # fmt: skip
        for item in items:
            await (mover.undo(item) if undo else mover.move(item))

    async def active(self, api):
        """The names of hosts a server would act on."""
        return {
            obj["metadata"]["name"]
            for obj in (await api.list(BARE_METAL_HOST)).items
            if PAUSED not in (obj["metadata"].get("annotations") or {})
        }

    async def never_both(self):
        both = await self.active(self.here) & await self.active(self.there)
        assert not both, both

    async def nothing(self):
        pass

    async def all(self, api):
        """Every object of an API that a move may touch, without what only servers write."""
        found = {}
        for kind in (BARE_METAL_HOST, SECRET, HARDWARE_DATA):
            for obj in (await api.list(kind)).items:
                found[kind.kind, obj["metadata"]["name"]] = obj
        return found

    async def assert_moved(self, before, *, here=None, there=None):
        """Nothing is left here, and there is what was here, in full."""
        here, there = here or self.here, there or self.there
        assert await self.all(here) == {}
        after = await self.all(there)
        assert after.keys() == before.keys()
        for key, obj in after.items():
            old = before[key]
            assert MOVE not in (obj["metadata"].get("annotations") or {}), key
            assert obj.get("spec") == old.get("spec")
            assert obj.get("data") == old.get("data")
            assert obj["metadata"].get("labels") == old["metadata"].get("labels")
        for (kind, name), obj in after.items():
            if kind != "BareMetalHost":
                continue
            old = before[kind, name]
            assert notes(obj) == notes(old)
            assert obj["metadata"]["finalizers"] == [FINALIZER]
            status, credentials = dict(obj["status"]), obj["spec"]["bmc"]["credentialsName"]
            known = status.pop("goodCredentials")
            version = after["Secret", credentials]["metadata"]["resourceVersion"]
            assert known["credentialsVersion"] == version
            assert status == {k: v for k, v in old["status"].items() if k != "goodCredentials"}
            (owner,) = after["HardwareData", name]["metadata"]["ownerReferences"]
            assert owner["uid"] == obj["metadata"]["uid"]


def notes(obj):
    """An object's annotations; none and an empty map are the same."""
    return obj["metadata"].get("annotations") or {}
