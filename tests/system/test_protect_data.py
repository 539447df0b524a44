"""billet.dev/protect-data, by kubectl, on both APIs."""

import contextlib

from scenarios import scenario
from server_rig import IMAGE, KubectlError, eventually

KEY = "billet.dev/protect-data"


@scenario
async def test_protected_data_is_kept_until_the_annotation_goes(user, machine):
    """What is on the disk is named; without the annotation it is wiped, as asked for."""
    box = machine()
    box.disk = "somebody's system"
    await user.register(box)
    await user.annotate(f"{KEY}=true")
    await user.until_state("ready")
    await user.provision()
    host = await user.until_problem("data-protected")
    assert "somebody's system" in host["status"]["errorMessage"]
    assert host["status"]["problem"].get("nextRetryAt") is None
    await user.until_event("somebody's system")
    assert box.disk == "somebody's system"
    await user.annotate(f"{KEY}-")
    await user.until_state("provisioned")
    await eventually(lambda: box.booted == [IMAGE])


@scenario
async def test_a_running_systems_data_is_protected_from_deprovisioning(user, machine):
    """Also what Billet wrote itself; a word that means nothing takes no protection away."""
    box = machine("redfish")
    image = {"url": IMAGE, "checksum": f"{IMAGE}.md5sum"}
    await user.register(box, online=True, image=image)
    await user.until_state("provisioned")
    with contextlib.suppress(KubectlError):  # taken where no webhook looks: then it protects
        await user.annotate(f"{KEY}=maybe")
    await user.annotate(f"{KEY}=true")
    await user.patch({"image": None})
    await user.until_problem("data-protected")
    assert box.disk == IMAGE
    await user.annotate(f"{KEY}=false")
    await user.until_state("ready")
    assert box.disk == "empty"
