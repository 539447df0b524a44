"""`billet provision` and `billet deprovision`: ``spec.image`` and the Secrets beside it."""

from pathlib import Path
from typing import Any

import click

from billet_server.cli import goals, verbs
from billet_server.cli.applying import Order, changing
from billet_server.cli.changes import SecretFile
from billet_server.core.host import Host, Image
from billet_server.core.states import State

_FILE = click.Path(exists=True, dir_okay=False)
_SUFFIXES = {"userData": "user-data", "networkData": "network-data", "metaData": "meta-data"}


@click.command(short_help="write an image to the disk and run it")
@click.option("--image", "url", required=True, metavar="URL", help="Where the machine fetches it.")
@click.option("--checksum", required=True, metavar="SUM", help="A digest, or a sum file's URL.")
@click.option(
    "--checksum-type",
    type=click.Choice(["md5", "sha256", "sha512", "auto"]),
    help="[by the digest's length]",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["raw", "qcow2", "vdi", "vmdk"]),
    help="What the image is. [recognised]",
)
@click.option("--user-data", type=_FILE, metavar="FILE", help="To Secret HOST-user-data.")
@click.option("--network-data", type=_FILE, metavar="FILE", help="To Secret HOST-network-data.")
@click.option("--meta-data", type=_FILE, metavar="FILE", help="To Secret HOST-meta-data.")
@click.option("--keep-offline", is_flag=True, help="Leave spec.online as it is.")
@changing()
def provision(
    url: str,
    checksum: str,
    checksum_type: str | None,
    image_format: str | None,
    *,
    keep_offline: bool,
    **files: str | None,
) -> Order:
    """Set spec.image and spec.online; files become Secrets that spec refers to.

    \b
    Examples:
      billet provision node01 --image http://172.22.0.2/debian.qcow2 \\
        --checksum http://172.22.0.2/SHA256SUMS --user-data cloud-config.yaml --wait
    """
    image = Image(url, checksum, checksum_type, image_format)
    contents = {
        key: (file, Path(file).read_bytes())
        for key, option in (
            ("userData", "user_data"),
            ("networkData", "network_data"),
            ("metaData", "meta_data"),
        )
        if (file := files[option])
    }

    def plan(host: Host) -> Any:
        secrets = [
            SecretFile(f"{host.key.name}-{_SUFFIXES[key]}", key, file, content)
            for key, (file, content) in contents.items()
        ]
        return verbs.provision(host, image, secrets, online=not keep_offline)

    def risk(host: Host) -> str:
        held = host.status.provisioning.image
        if held is None or held.url == url or verbs.state_of(host) is not State.PROVISIONED:
            return ""
        return f"it runs {held.url}: all its disks are wiped first"

    return Order(plan, goals.provisioned(url), risk)


@click.command(short_help="take the image away and wipe the disks")
@click.option("--power-off", is_flag=True, help="Also set spec.online to false.")
@changing()
def deprovision(*, power_off: bool) -> Order:
    """Remove spec.image: the running system ends, the disks' partition tables are wiped.

    \b
    Examples:
      billet deprovision node01 --wait
      billet deprovision -l rack=a1 --power-off --yes
    """

    def risk(host: Host) -> str:
        held = host.status.provisioning.image
        what = f"it runs {held.url}; " if held else ""
        return f"{what}its disks are wiped"

    return Order(
        lambda host: verbs.deprovision(host, power_off=power_off), goals.deprovisioned, risk
    )
