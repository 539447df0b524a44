"""The name of a process, and the keys that replicas share."""

import base64

import pytest

from billet_server import errors, pki
from billet_server.engine.identity import SECRET_NAME, OwnName, share_identity, token_key
from billet_server.memory.kube import MemoryKube
from billet_server.ports import SECRET

NS = "billet-system"


@pytest.fixture
def api():
    return MemoryKube(namespaces=(NS,))


def files(folder):
    paths = (folder / "pki/ca.crt", folder / "pki/ca.key", folder / "agent-token.key")
    return [path.read_bytes() for path in paths]


def test_a_name_is_kept_by_its_folder_and_held_by_one_process(tmp_path):
    first = OwnName(tmp_path, "pod-1")
    with pytest.raises(errors.ConfigError, match="in use by another Billet server"):
        OwnName(tmp_path, "pod-1")
    first.close()
    again = OwnName(tmp_path, "pod-1")
    assert again.text == first.text
    assert first.text.startswith("pod-1_")
    again.close()


def test_two_folders_have_two_names(tmp_path):
    names = []
    for name in "ab":
        (tmp_path / name).mkdir()
        own = OwnName(tmp_path / name, "same")
        names.append(own.text)
        own.close()
    assert len(set(names)) == 2


def test_a_spoilt_name_file_is_written_anew(tmp_path):
    (tmp_path / "identity").write_bytes(b"\xff\x00" * 40)
    own = OwnName(tmp_path, "n")
    assert len(own.text) == len("n_") + 8
    own.close()


async def test_the_first_gives_its_keys_and_the_others_take_them(api, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    before = pki.ensure_authority(one / "pki").fingerprint
    token_key(one)
    pki.ensure_authority(two / "pki")
    token_key(two)
    await share_identity(api, NS, one)
    await share_identity(api, NS, two)
    assert files(one) == files(two)
    assert pki.ensure_authority(two / "pki").fingerprint == before, "its agents know this one"
    assert (two / "pki/ca.key").stat().st_mode & 0o777 == 0o600


async def test_a_fresh_folder_gets_all_of_it(api, tmp_path):
    await share_identity(api, NS, tmp_path / "one")
    await share_identity(api, NS, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    leaf = pki.ensure_leaf(
        pki.ensure_authority(tmp_path / "two/pki"), tmp_path / "two/pki", "agents", ["127.0.0.2"]
    )
    assert leaf.server_context()


async def test_two_that_start_together_agree(api, tmp_path):
    class Late(MemoryKube):
        """Says that there is no Secret, once, though another replica has just written it."""

        asked = False

        async def get(self, kind, namespace, name):
            if kind is SECRET and not self.asked:
                self.asked = True
                raise errors.NotFound("not yet", 404)
            return await api.get(kind, namespace, name)

        async def create(self, kind, obj):
            return await api.create(kind, obj)

    await share_identity(api, NS, tmp_path / "one")
    await share_identity(Late(), NS, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def encoded(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ca.key": None}, "it has no ca.key"),
        ({"ca.crt": encoded(b"no certificate")}, "its ca.crt or ca.key cannot be read"),
        ({"agent-token.key": encoded(b"short")}, "fewer than 16 bytes"),
        ({"agent-token.key": None, "ca.crt": None}, "it has no ca.crt; it has no agent-token.key"),
    ],
)
async def test_a_spoilt_secret_is_refused_by_name(api, tmp_path, change, words):
    await share_identity(api, NS, tmp_path / "one")
    await api.patch(SECRET, NS, SECRET_NAME, {"data": change})
    with pytest.raises(errors.ConfigError, match=words) as caught:
        await share_identity(api, NS, tmp_path / "two")
    assert "billet-system/billet-identity" in str(caught.value)
    assert "delete it and restart every server" in str(caught.value)


async def test_a_key_of_another_ca_is_refused(api, tmp_path):
    await share_identity(api, NS, tmp_path / "one")
    other = pki.ensure_authority(tmp_path / "other")
    change = {"ca.key": encoded(other.key_path.read_bytes())}
    await api.patch(SECRET, NS, SECRET_NAME, {"data": change})
    with pytest.raises(errors.ConfigError, match="do not belong together"):
        await share_identity(api, NS, tmp_path / "two")
