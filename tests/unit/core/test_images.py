"""What spec.image becomes for the agent; admission and the core must agree on it."""

import pytest

from billet_server.core.host import Image
from billet_server.core.images import image_source
from billet_server.core.problems import Fault
from billet_server.core.validation.disks import image_faults
from billet_wire import ImageSource

URL = "http://images.example/os.qcow2"
MD5, SHA256, SHA512 = "a1" * 16, "B2" * 32, "c3" * 64


@pytest.mark.parametrize(
    ("checksum", "good"),
    [
        (MD5, True),
        (SHA256, True),
        (SHA512, True),
        (f"md5:{MD5}", True),
        (f"sha256:{SHA256}", True),
        (f"SHA512:{SHA512}", True),
        (f"sha256:{MD5}", False),
        (f"auto:{MD5}", False),
        (f"AUTO:{MD5}", False),
        (f"sha1:{MD5}", False),
        (f":{MD5}", False),
        (f"md5:{MD5}:{MD5}", False),
        (f"md5: {MD5}", False),
        ("md5:", False),
        (f"{MD5}0", False),
        (f"http://images.example/{MD5}.sums", True),
        ("ftp://images.example/sums", False),
    ],
)
def test_digests(checksum: str, good: bool) -> None:
    source = image_source(Image(URL, checksum))
    assert isinstance(source, ImageSource if good else Fault)
    faults = list(image_faults({"spec": {"image": {"url": URL, "checksum": checksum}}}))
    assert bool(faults) is not good
