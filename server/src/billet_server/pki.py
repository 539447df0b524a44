"""Our own certificate authority: one EC key in the state directory, leaf certificates on demand.

The API's kubeconfig embeds the CA; agents get its SHA-256 fingerprint on the kernel line and
pin it. Keys are written 0600, atomically; a leaf is renewed when its names change or less than
a third of its life is left.
"""

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 365


class Authority(NamedTuple):
    """A CA on disk. ``fingerprint`` is the lower-case hex SHA-256 of its DER certificate."""

    cert_path: Path
    key_path: Path
    fingerprint: str

    @property
    def cert_pem(self) -> bytes:
        """Return the CA certificate in PEM."""
        return self.cert_path.read_bytes()


class Leaf(NamedTuple):
    """A server certificate (leaf followed by its CA) and key on disk."""

    cert_path: Path
    key_path: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a TLS server context, TLS 1.2 at least."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert_path, self.key_path)
        return context


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 atomically: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ensure_authority(directory: Path) -> Authority:
    """Return the CA in ``directory`` (ca.crt, ca.key), making it on first use."""
    cert_path, key_path = directory / "ca.crt", directory / "ca.key"
    if not (cert_path.exists() and key_path.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "billet-ca")])
        builder = _builder(name, name, key.public_key(), CA_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_key_usage(ca=True), True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        write_private(key_path, _key_pem(key))
        write_private(cert_path, _pem(builder.sign(key, hashes.SHA256())))
    cert = x509.load_pem_x509_certificate(cert_path.read_bytes())
    der = cert.public_bytes(serialization.Encoding.DER)
    return Authority(cert_path, key_path, hashlib.sha256(der).hexdigest())


def ensure_leaf(authority: Authority, directory: Path, name: str, names: Iterable[str]) -> Leaf:
    """Return a server certificate for DNS names and IP addresses, renewing it when needed."""
    leaf = Leaf(directory / f"{name}.crt", directory / f"{name}.key")
    wanted = sorted(set(names))
    if not _usable(leaf, wanted, authority):
        _issue(authority, leaf, name, wanted)
    return leaf


def _usable(leaf: Leaf, names: list[str], authority: Authority) -> bool:
    if not (leaf.cert_path.exists() and leaf.key_path.exists()):
        return False
    cert = x509.load_pem_x509_certificate(leaf.cert_path.read_bytes())
    try:
        cert.verify_directly_issued_by(_load(authority)[0])
        extension = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, a new one is made
        return False
    have = sorted(str(getattr(entry, "value", "")) for entry in extension.value)
    left = cert.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return have == names and left > datetime.timedelta(days=LEAF_DAYS / 3)


def _issue(authority: Authority, leaf: Leaf, name: str, names: list[str]) -> None:
    ca_cert, ca_key = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"billet-{name}")])
    builder = _builder(subject, ca_cert.subject, key.public_key(), LEAF_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_key_usage(ca=False), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general_name(entry) for entry in names]), False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
    )
    cert = builder.sign(ca_key, hashes.SHA256())
    write_private(leaf.key_path, _key_pem(key))
    write_private(leaf.cert_path, _pem(cert) + authority.cert_pem)


def _load(authority: Authority) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    cert = x509.load_pem_x509_certificate(authority.cert_pem)
    key = serialization.load_pem_private_key(authority.key_path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{authority.key_path} holds no elliptic curve key")
    return cert, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A ramdisk's clock may lag: hosts without a battery start years back, others minutes.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
