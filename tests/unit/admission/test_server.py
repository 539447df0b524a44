"""The webhook's listener, by real TLS on loopback."""

import asyncio
import contextlib
import json
import logging
import shutil
import ssl

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization

from billet_server import app, pki
from billet_server.admission import CertificateFiles, WebhookServer
from billet_server.admission.server import MAX_BODY_BYTES, PATH
from billet_server.errors import ConfigError
from billet_server.settings import Inputs, check
from unit.admission.test_review import host, review


@pytest.fixture
def authority(tmp_path):
    return pki.ensure_authority(tmp_path / "ca")


@pytest.fixture
def files(authority, tmp_path):
    """A certificate as a mounted Secret has it."""
    return pki.ensure_leaf(authority, tmp_path, "tls", ["127.0.0.1", "localhost"])


@pytest.fixture
async def webhook(files):
    server = WebhookServer(CertificateFiles(files.cert_path, files.key_path), reload_s=0.02)
    port = await server.start("127.0.0.1", 0)
    yield f"https://127.0.0.1:{port}"
    await server.stop()


@pytest.fixture
async def session(authority):
    context = ssl.create_default_context(cadata=authority.cert_pem.decode())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as made:
        yield made


async def post(session, url, body, media="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(url, data=data, headers={"Content-Type": media}) as answer:
        return answer.status, await answer.text()


async def test_reviews_are_answered(webhook, session):
    status, text = await post(session, webhook + PATH, review(host()))
    assert (status, json.loads(text)["response"]["allowed"]) == (200, True)
    status, text = await post(session, webhook + PATH + "?timeout=10s", review(host(online=1)))
    assert status == 200
    refused = review(host(image={"url": "x"}))
    status, text = await post(session, webhook + PATH, refused, "application/json; charset=utf-8")
    assert (status, json.loads(text)["response"]["allowed"]) == (200, False)


async def test_refusals_are_logged_in_one_line(webhook, session, caplog):
    caplog.set_level(logging.INFO)
    await post(session, webhook + PATH, review(host(image={"url": "x"}), name="a\nb"))
    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.message]
    assert "CREATE metal3/a\\nb" in line
    assert "spec.image.checksum" in line


async def test_many_at_once_are_all_answered(webhook, session):
    asked = [review(host(), uid=str(number)) for number in range(200)]
    answers = await asyncio.gather(*(post(session, webhook + PATH, one) for one in asked))
    uids = [json.loads(text)["response"]["uid"] for _, text in answers]
    assert uids == [str(number) for number in range(200)]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_only_post(webhook, session, method):
    async with session.request(method, webhook + PATH) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert f"{method} is not answered here" in await answer.text()


async def test_other_paths_are_not_found(webhook, session):
    status, text = await post(session, webhook + "/validate", review(host()))
    assert status == 404
    assert PATH in text
    async with session.get(webhook + "/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")


@pytest.mark.parametrize("media", ["text/plain", "application/yaml", "application/octet-stream"])
async def test_other_media_types_are_refused(webhook, session, media):
    status, text = await post(session, webhook + PATH, review(host()), media)
    assert status == 415
    assert f"as application/json, not {media}" in text


async def test_broken_bodies_are_refused_with_the_reason(webhook, session):
    status, text = await post(session, webhook + PATH, b"{")
    assert status == 400
    assert "not JSON" in text
    status, text = await post(session, webhook + PATH, b'{"kind":"Pod"}')
    assert (status, text) == (400, "the body must be an AdmissionReview\n")


async def test_a_large_object_passes_and_a_flood_does_not(webhook, session):
    large = review(host(description="x" * 3_000_000), host(), "UPDATE")
    status, _ = await post(session, webhook + PATH, large)
    assert status == 200
    status, text = await post(session, webhook + PATH, b" " * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert str(MAX_BODY_BYTES) in text


async def test_a_silent_sender_does_not_hold_up_the_others(webhook, session, authority):
    context = ssl.create_default_context(cadata=authority.cert_pem.decode())
    port = int(webhook.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\n".encode())
    await writer.drain()
    status, _ = await post(session, webhook + PATH, review(host()))
    assert status == 200
    writer.close()
    assert await reader.read() == b""


def test_tls_is_1_2_at_least(files):
    context = CertificateFiles(files.cert_path, files.key_path).load()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_plain_http_gets_no_answer(webhook, session):
    with pytest.raises(aiohttp.ClientError):
        await post(session, webhook.replace("https", "http") + PATH, review(host()))


# certificates


async def fingerprint(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    cert = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return cert


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_renewed_certificate_is_taken_without_a_restart(
    webhook, session, files, authority, tmp_path
):
    port = int(webhook.rpartition(":")[2])
    before = await fingerprint(port)
    renewed = pki.ensure_leaf(authority, tmp_path / "new", "tls", ["127.0.0.1"])
    shutil.copy(renewed.cert_path, files.cert_path)  # key and certificate do not fit for a while
    await asyncio.sleep(0.1)
    assert await fingerprint(port) == before
    shutil.copy(renewed.key_path, files.key_path)

    async def changed():
        return await fingerprint(port) != before

    await until(changed)
    status, _ = await post(session, webhook + PATH, review(host()))
    assert status == 200


async def test_a_lost_certificate_is_reported_once_and_the_old_one_stays(
    webhook, session, files, caplog
):
    files.cert_path.unlink()
    await asyncio.sleep(0.2)
    assert [record.message for record in caplog.records if "is gone" in record.message] == [
        caplog.records[-1].message
    ]
    status, _ = await post(session, webhook + PATH, review(host()))
    assert status == 200


def test_a_certificate_that_is_no_use_is_named(files, tmp_path, authority):
    other = pki.ensure_leaf(authority, tmp_path / "other", "tls", ["h"])
    for cert, key in (
        (files.cert_path, other.key_path),
        (files.key_path, files.cert_path),
        (tmp_path / "none", files.key_path),
    ):
        with pytest.raises(ConfigError, match="is no use") as caught:
            CertificateFiles(cert, key).load()
        assert str(cert) in str(caught.value)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(files, capfd):
    key = serialization.load_pem_private_key(files.key_path.read_bytes(), None)
    files.key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="is no use"):
        CertificateFiles(files.cert_path, files.key_path).load()
    assert capfd.readouterr() == ("", "")


async def test_a_taken_port_is_named(webhook, files):
    port = int(webhook.rpartition(":")[2])
    second = WebhookServer(CertificateFiles(files.cert_path, files.key_path))
    with pytest.raises(ConfigError, match=f"on 127.0.0.1 port {port}.*--webhook-port"):
        await second.start("127.0.0.1", port)


# as `billet up` starts it


@pytest.mark.parametrize("own", [True, False], ids=["own CA", "files"])
async def test_billet_up_starts_it(own, files, authority, session, tmp_path, unused_tcp_port):
    port, lines = unused_tcp_port, []
    given = (
        {} if own else {"webhook_cert": str(files.cert_path), "webhook_key": str(files.key_path)}
    )
    names = {"webhook_names": ("hook.billet-system.svc",)} if own else {}
    inputs = Inputs(state_dir=str(tmp_path), webhook_port=port, webhook_host="127.0.0.1",
                    **given, **names)  # fmt: skip
    checked = check(inputs)
    assert checked.webhook is not None
    async with contextlib.AsyncExitStack() as stack:
        await app.start_webhook(checked.webhook, checked, authority, stack, lines.append)
        for name in ("127.0.0.1", "localhost"):
            status, _ = await post(session, f"https://{name}:{port}{PATH}", review(host()))
            assert status == 200
        if own:
            context = ssl.create_default_context(cadata=authority.cert_pem.decode())
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="hook.billet-system.svc"
            )
            writer.close()
    assert lines == [
        f"webhook on 127.0.0.1 port {port}; billet webhook-manifest makes a cluster ask"
    ]
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(session, f"https://127.0.0.1:{port}{PATH}", review(host()))
