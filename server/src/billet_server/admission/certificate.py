"""The webhook's certificate: files that somebody else may renew, such as a mounted Secret."""

import logging
import ssl
from pathlib import Path

from billet_server.errors import ConfigError

log = logging.getLogger(__name__)

# Without one OpenSSL asks the terminal for the password of an encrypted key.
_NO_PASSWORD = ""

_Stamp = tuple[tuple[int, int, int], ...]


class CertificateFiles:
    """A certificate (leaf first) and its key, both PEM."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self._stamp: _Stamp = ()

    def load(self) -> ssl.SSLContext:
        """Return a TLS server context, TLS 1.2 at least. Raises ConfigError."""
        try:
            self._stamp = self._look()
            return self._context()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                [f"the webhook's certificate {self._cert} with key {self._key} is no use: {error}"]
            ) from error

    def reload(self, context: ssl.SSLContext) -> bool:
        """Give changed files to new connections of a context; whether there were any.

        What cannot be used is reported, once, and the old certificate stays.
        """
        try:
            stamp = self._look()
        except OSError as error:
            if self._stamp:
                log.warning("webhook: the certificate is gone, the old one stays: %s", error)
            self._stamp = ()
            return False
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._context()  # first, since one that fails half-way is left with one half
            context.load_cert_chain(self._cert, self._key, password=_NO_PASSWORD)
        except (OSError, ValueError) as error:
            log.warning("webhook: the renewed certificate %s is no use: %s", self._cert, error)
            return False
        log.info("webhook: took the renewed certificate %s", self._cert)
        return True

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key, password=_NO_PASSWORD)
        return context

    def _look(self) -> _Stamp:
        found = [path.stat() for path in (self._cert, self._key)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
