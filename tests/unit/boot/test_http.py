import asyncio

import aiohttp
import pytest

from billet_server.boot.http import BootHttp
from billet_server.core.bootplan import AskAgain, BootPlan, DiskBoot, RamdiskBoot
from billet_server.core.ratelimit import MAX_PEERS, RateLimit
from billet_server.core.terms import HostKey
from billet_server.errors import BootError

MAC = "52:54:00:00:00:01"
KERNEL = bytes(range(256)) * 40


class Directory:
    """Plans by MAC, as the engine's directory gives them; remembers the stages seen."""

    def __init__(self) -> None:
        self.plans: dict[str, BootPlan] = {}
        self.seen: list[tuple[str, str, str]] = []

    def boot_plan(self, mac: str) -> BootPlan:
        return self.plans.get(mac, DiskBoot("this machine is not known here"))

    def boot_seen(self, mac: str, stage: str, detail: str = "") -> None:
        self.seen.append((mac, stage, detail))


@pytest.fixture
def directory():
    directory = Directory()
    directory.plans[MAC] = RamdiskBoot(HostKey("metal", "node-1"), "n0nce", ("billet.token=T",))
    return directory


@pytest.fixture
def ramdisk(tmp_path):
    (tmp_path / "vmlinuz").write_bytes(KERNEL)
    (tmp_path / "initramfs").write_bytes(b"initramfs" * 1000)
    (tmp_path / "secret").write_text("not for the network")
    return tmp_path


@pytest.fixture
async def http(directory, ramdisk):
    async with serving(BootHttp(directory, ramdisk, b"PEM", loader_dir=ramdisk)) as session:
        yield session


class serving:
    def __init__(self, server: BootHttp) -> None:
        self.server = server

    async def __aenter__(self) -> aiohttp.ClientSession:
        port = await self.server.start("127.0.0.1", 0)
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")
        return self.session

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.stop()


async def get(http, path, **headers):
    async with http.get(path, headers=headers) as response:
        return response.status, await response.read(), response.headers


async def stages(directory, count):
    """The stages seen, once there are that many: the client may be done before the server."""
    async with asyncio.timeout(10):
        while len(directory.seen) < count:
            await asyncio.sleep(0.005)
    return directory.seen


async def test_the_first_script_asks_again_with_the_mac(http):
    status, body, _ = await get(http, "/boot.ipxe")
    assert status == 200
    assert b"chain --replace --autofree /boot/script?mac=${netX/mac:hexhyp}" in body


async def test_a_host_meant_to_netboot_gets_its_ramdisk(http, directory):
    status, body, headers = await get(http, "/boot/script?mac=52-54-00-00-00-01")
    assert status == 200
    assert b"kernel /boot/n0nce/vmlinuz?mac=52-54-00-00-00-01 " in body
    assert b"billet.token=T" in body
    assert headers["Cache-Control"] == "no-store"
    assert directory.seen == [(MAC, "script", "ramdisk for metal/node-1")]


async def test_a_server_that_knows_nothing_yet_asks_for_patience(http, directory):
    directory.plans[MAC] = AskAgain("the server has just started")
    for path in ("/boot/script", "/boot/n0nce/vmlinuz"):
        status, body, _ = await get(http, f"{path}?mac={MAC}")
        assert (status, body) == (503, b"the server has just started; ask again.\n")
    assert directory.seen == []


async def test_an_unknown_machine_goes_to_its_disk(http, directory):
    status, body, _ = await get(http, "/boot/script?mac=52:54:00:00:00:99")
    assert status == 200
    assert b"booting from disk: this machine is not known here" in body
    assert b"kernel" not in body
    assert directory.seen == [
        ("52:54:00:00:00:99", "script", "disk: this machine is not known here")
    ]


@pytest.mark.parametrize("query", ["", "?mac=", "?mac=nonsense", "?mac=%0Ashell", "?mac=%F0%9F"])
async def test_a_malformed_mac_goes_to_the_disk_and_says_why(http, directory, query):
    status, body, _ = await get(http, f"/boot/script{query}")
    assert status == 200
    assert b"is not an Ethernet address" in body
    assert body.count(b"\n") == 7
    assert directory.seen == []


async def test_a_refused_kernel_argument_never_reaches_the_machine(http, directory):
    directory.plans[MAC] = RamdiskBoot(HostKey("metal", "node-1"), "n0nce", ("x\nshell",))
    status, body, _ = await get(http, f"/boot/script?mac={MAC}")
    assert status == 200
    assert b"kernel argument that is refused" in body
    assert b"\nshell" not in body


async def test_kernel_and_initramfs_are_served_and_counted(http, directory):
    status, body, _ = await get(http, f"/boot/n0nce/vmlinuz?mac={MAC}")
    assert (status, body) == (200, KERNEL)
    status, body, _ = await get(http, f"/boot/n0nce/initramfs?mac={MAC}")
    assert (status, len(body)) == (200, 9000)
    assert await stages(directory, 2) == [
        (MAC, "kernel", "10240 bytes"),
        (MAC, "initramfs", "9000 bytes"),
    ]


async def test_ranges(http, directory):
    status, body, headers = await get(http, f"/boot/n0nce/vmlinuz?mac={MAC}", Range="bytes=100-199")
    assert (status, body) == (206, KERNEL[100:200])
    assert headers["Content-Range"] == "bytes 100-199/10240"
    assert await stages(directory, 1) == [(MAC, "kernel", "100 bytes")]


async def test_head_is_no_boot_stage(http, directory):
    async with http.head(f"/boot/n0nce/vmlinuz?mac={MAC}") as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "10240")
    assert directory.seen == []


@pytest.mark.parametrize(
    "path",
    [
        f"/boot/other/vmlinuz?mac={MAC}",
        "/boot/n0nce/vmlinuz?mac=52:54:00:00:00:99",
        "/boot/n0nce/vmlinuz",
        "/boot/n0nce/vmlinuz?mac=x",
    ],
)
async def test_a_boot_address_that_is_not_current(http, directory, path):
    status, body, _ = await get(http, path)
    assert status == 404
    assert b"This boot address is not current" in body
    assert directory.seen == []


async def test_the_address_dies_with_its_boot(http, directory):
    directory.plans[MAC] = DiskBoot("metal/node-1 is provisioned")
    status, _, _ = await get(http, f"/boot/n0nce/vmlinuz?mac={MAC}")
    assert status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/boot/",
        "/boot/n0nce/",
        f"/boot/n0nce/secret?mac={MAC}",
        f"/boot/n0nce/..%2Fsecret?mac={MAC}",
        "/boot/loader/secret",
        "/boot/loader/..%2Fsecret",
        "/secret",
        "/../../etc/passwd",
    ],
)
async def test_nothing_else_is_served_and_nothing_listed(http, path):
    status, body, _ = await get(http, path)
    assert status == 404
    assert b"no such boot file" in body
    assert b"secret" not in body


async def test_only_reading_and_no_bodies(http):
    async with http.post("/boot/script", data=b"x") as response:
        assert response.status == 413
    async with http.delete("/boot.ipxe") as response:
        assert response.status == 405


async def test_the_first_loaders_for_uefi_http_boot(http, ramdisk):
    (ramdisk / "snponly.efi").write_bytes(b"loader")
    assert (await get(http, "/boot/loader/snponly.efi"))[1] == b"loader"


async def test_ca_and_health(http):
    assert (await get(http, "/ca.pem"))[1] == b"PEM"
    assert (await get(http, "/healthz"))[1] == b"ok\n"


async def test_a_missing_ramdisk_says_so(directory, tmp_path):
    async with serving(BootHttp(directory, tmp_path, b"PEM", loader_dir=tmp_path)) as http:
        status, body, _ = await get(http, f"/boot/n0nce/vmlinuz?mac={MAC}")
        assert (status, body) == (503, b"The server has no vmlinuz; build the ramdisk first.\n")
        assert (await get(http, "/boot/loader/snponly.efi"))[0] == 404


async def test_scripts_are_rate_limited_by_address(directory, ramdisk):
    server = BootHttp(directory, ramdisk, b"PEM", script_rate_per_s=0.001, script_burst=2)
    async with serving(server) as http:
        statuses = [(await get(http, f"/boot/script?mac={MAC}"))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_a_taken_port_is_named(directory, ramdisk):
    first, second = (BootHttp(directory, ramdisk, b"PEM") for _ in range(2))
    port = await first.start("127.0.0.1", 0)
    try:
        with pytest.raises(BootError, match=f"127.0.0.1 port {port}: .*in use"):
            await second.start("127.0.0.1", port)
    finally:
        await first.stop()


def test_the_bucket_refills_and_forgets_in_bounded_memory():
    limit = RateLimit(rate_per_s=2, burst=2)
    assert [limit.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limit.take("b", 0.0)
    assert [limit.take("a", 0.5), limit.take("a", 0.5)] == [True, False]
    for number in range(MAX_PEERS):
        limit.take(f"p{number}", 1.0)
    assert [limit.take("a", 1.0) for _ in range(3)] == [True, True, False]
