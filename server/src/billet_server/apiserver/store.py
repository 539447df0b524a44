"""Durable objects in one SQLite file; the only module that knows SQLite.

One writer thread takes operations from a queue and commits them in groups: the more arrive at
once, the more share one fsync (``synchronous=FULL``), and none is acknowledged before it is on
disk. Readers use connections of their own (WAL). Each committed operation gets the next
resourceVersion and an entry in the change log, which feeds watches and is bounded in rows and
bytes; what fell out of it is `Compacted`.

Bodies are finished JSON. The writer alone knows an object's resourceVersion, so a body comes as
two halves (`Halves`) with the version's place between them.
"""

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, NamedTuple, cast

from billet_server.errors import ConfigError

FORMAT = 1
"""``PRAGMA user_version`` of the file."""

_TABLES = """
CREATE TABLE objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    version INTEGER NOT NULL, uid TEXT NOT NULL, written_s INTEGER NOT NULL, labels TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE UNIQUE INDEX objects_key ON objects (resource, namespace, name);
CREATE UNIQUE INDEX objects_uid ON objects (uid);
CREATE INDEX objects_namespace ON objects (namespace);
CREATE TABLE owners (
    owner TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (owner, resource, namespace, name)) WITHOUT ROWID;
CREATE INDEX owners_key ON owners (resource, namespace, name);
CREATE TABLE changes (
    version INTEGER PRIMARY KEY, type TEXT NOT NULL, resource TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, old_labels TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX changes_resource ON changes (resource, version);
"""

NAMESPACES = "/namespaces"
"""The resource whose objects other objects live in."""


class Key(NamedTuple):
    """One object: ``resource`` is "group/plural" ("/secrets" for core)."""

    resource: str
    namespace: str
    name: str


class Halves(NamedTuple):
    """A JSON body split where the digits of its resourceVersion go."""

    head: bytes
    tail: bytes

    def at(self, version: int) -> bytes:
        """Return the body with its version."""
        return b"%s%d%s" % (self.head, version, self.tail)


class Put(NamedTuple):
    """Write one object; ``expect`` None creates, a number replaces just that version."""

    key: Key
    expect: int | None
    uid: str
    labels: str
    owners: Sequence[str]
    halves: Halves
    now_s: int


class Remove(NamedTuple):
    """Delete one object of just that version; ``halves`` is its last state for watches.

    ``if_empty``: a namespace that still holds objects is `Stale`.
    """

    key: Key
    expect: int
    halves: Halves
    if_empty: bool = False


Operation = Put | Remove


class Stale(Exception):
    """The object is not in the state that the operation expected (it may exist or be gone)."""


class NoNamespace(Exception):
    """The namespace of a new object does not exist."""


class Compacted(Exception):
    """The change log no longer reaches back to that version."""


class Change(NamedTuple):
    """A committed operation. ``old_labels``: JSON of the labels before it ("" when new)."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    uid: str
    old_labels: str
    body: bytes


class Page(NamedTuple):
    """Objects in key order, the version they were read at, how many follow, the last key."""

    bodies: list[bytes]
    version: int
    remaining: int
    last: tuple[str, str] | None


class _Job(NamedTuple):
    operation: Operation | None
    future: Future[Change | None]


class Store:
    """The objects. Thread-safe; `submit` never blocks, reads block for as long as SQLite does."""

    def __init__(
        self,
        path: Path,
        on_commit: Callable[[list[Change]], None] = lambda _: None,
        *,
        max_log_rows: int = 20_000,
        max_log_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        """Open or create the file. Raises ConfigError when a newer Billet wrote it.

        ``on_commit`` is called in the writer thread, in order, before the futures complete.
        """
        self._path = path
        self._on_commit = on_commit
        self._max_rows, self._max_bytes = max_log_rows, max_log_bytes
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        # It holds Secrets; SQLite gives its side files the same mode.
        path.touch(mode=0o600)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = self._connect()
        self._prepare()
        self.version: int = self._writer.execute(
            "SELECT coalesce(max(version), 1) FROM changes"
        ).fetchone()[0]
        """The version of the last commit; may be read from any thread."""
        self._log_rows, self._log_bytes = self._writer.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM changes"
        ).fetchone()
        self._thread = threading.Thread(target=self._write_all, name="api-store", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")
        self._connections.append(connection)
        return connection

    def _prepare(self) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._writer.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={FORMAT}; COMMIT;")
        elif found != FORMAT:
            self._writer.close()
            fault = (
                f"{self._path} has format {found}, this Billet reads format {FORMAT}: "
                "start the Billet version that wrote it"
            )
            raise ConfigError([fault])

    def close(self) -> None:
        """Finish what was submitted, then release the file."""
        self._jobs.put(None)
        self._thread.join()
        for connection in self._connections:
            connection.close()

    # --- writing -----------------------------------------------------------------------------

    def submit(self, operation: Operation) -> Future[Change]:
        """Queue an operation; the future completes after its commit, or raises Stale, NoNamespace.

        A `Put` that would change nothing must not be submitted: every operation counts.
        """
        future: Future[Change] = Future()
        self._jobs.put(_Job(operation, cast("Future[Change | None]", future)))
        return future

    def compact(self) -> Future[Change | None]:
        """Forget the change log but for its last entry: who watches from before must list."""
        future: Future[Change | None] = Future()
        self._jobs.put(_Job(None, future))
        return future

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            last = False
            while len(batch) < 512:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                batch.append(following)
            # A caller that went away before its turn takes its operation with it.
            self._write([job for job in batch if job.future.set_running_or_notify_cancel()])
            if last:
                return

    def _write(self, batch: list[_Job]) -> None:
        answers: list[tuple[Future[Change | None], Change | Exception | None]] = []
        version, rows, size = self.version, self._log_rows, self._log_bytes
        try:
            with self._transaction():
                for operation, future in batch:
                    if operation is None:
                        rows, size = self._trim(rows, size, keep_rows=1)
                        answers.append((future, None))
                        continue
                    try:
                        change = self._apply(operation, version + 1)
                    except (Stale, NoNamespace) as refusal:
                        answers.append((future, refusal))
                    else:
                        version, rows = version + 1, rows + 1
                        size += len(change.body)
                        answers.append((future, change))
                if rows > self._max_rows or size > self._max_bytes:
                    rows, size = self._trim(rows, size, keep_rows=self._max_rows * 9 // 10)
        except Exception as error:  # noqa: BLE001 - the thread's edge: it must outlive any error
            # Nothing of the batch is on disk (full, I/O error): nobody is told that it is.
            for _, future in batch:
                future.set_exception(OSError(f"{self._path} cannot be written: {error}"))
            return
        self.version, self._log_rows, self._log_bytes = version, rows, size
        if changes := [answer for _, answer in answers if isinstance(answer, Change)]:
            self._on_commit(changes)
        for future, answer in answers:
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _apply(self, operation: Operation, version: int) -> Change:
        key = operation.key
        found = self._writer.execute(
            "SELECT version, uid, labels FROM objects "
            "WHERE resource=? AND namespace=? AND name=?", key
        ).fetchone()  # fmt: skip
        if (found[0] if found else None) != operation.expect:
            raise Stale
        body = operation.halves.at(version)
        if isinstance(operation, Remove):
            if operation.if_empty and self.in_namespace(key.name, limit=1, _on=self._writer):
                raise Stale
            self._forget(key)
            change = Change(version, "DELETED", key, found[1], found[2], body)
        elif found:
            self._forget(key)
            self._insert(operation, version, body)
            change = Change(version, "MODIFIED", key, operation.uid, found[2], body)
        else:
            if key.namespace and not self._version_of(Key(NAMESPACES, "", key.namespace)):
                raise NoNamespace
            self._insert(operation, version, body)
            change = Change(version, "ADDED", key, operation.uid, "", body)
        self._writer.execute(
            "INSERT INTO changes VALUES (?,?,?,?,?,?,?,?)",
            (version, change.type, *key, change.uid, change.old_labels, body),
        )
        return change

    def _version_of(self, key: Key) -> int | None:
        row = self._writer.execute(
            "SELECT version FROM objects WHERE resource=? AND namespace=? AND name=?", key
        ).fetchone()
        return row[0] if row else None

    def _insert(self, put: Put, version: int, body: bytes) -> None:
        self._writer.execute(
            "INSERT INTO objects VALUES (?,?,?,?,?,?,?,?)",
            (*put.key, version, put.uid, put.now_s, put.labels, body),
        )
        self._writer.executemany(
            "INSERT OR IGNORE INTO owners VALUES (?,?,?,?)",
            [(owner, *put.key) for owner in put.owners],
        )

    def _forget(self, key: Key) -> None:
        where = "WHERE resource=? AND namespace=? AND name=?"
        self._writer.execute(f"DELETE FROM objects {where}", key)  # noqa: S608 - a constant
        self._writer.execute(f"DELETE FROM owners {where}", key)  # noqa: S608 - a constant

    def _trim(self, rows: int, size: int, *, keep_rows: int) -> tuple[int, int]:
        """Shorten the log, by bytes to nine tenths of what it may hold, never to nothing."""
        keep_bytes = self._max_bytes * 9 // 10
        last = 0
        oldest = self._writer.execute("SELECT version, length(body) FROM changes ORDER BY version")
        for version, length in oldest:
            if rows <= max(1, keep_rows) and (size <= keep_bytes or rows == 1):
                break
            last, rows, size = version, rows - 1, size - length
        oldest.close()
        self._writer.execute("DELETE FROM changes WHERE version <= ?", (last,))
        return rows, size

    # --- reading -----------------------------------------------------------------------------

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def get(self, key: Key) -> bytes | None:
        """Return one body (some 20 µs)."""
        row = self._reader().execute(
            "SELECT body FROM objects WHERE resource=? AND namespace=? AND name=?", key
        ).fetchone()  # fmt: skip
        return row[0] if row else None

    def page(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        name: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int = -1,
    ) -> Page:
        """Return the objects of a resource after a (namespace, name), in that order."""
        where, values = "resource=?", [resource]
        if namespace is not None:
            where, values = where + " AND namespace=?", [*values, namespace]
        if name is not None:
            where, values = where + " AND name=?", [*values, name]
        if after is not None:
            where, values = where + " AND (namespace, name) > (?,?)", [*values, *after]
        reader = self._reader()
        with self._snapshot(reader):
            version = self._log_end(reader)
            rows = reader.execute(
                f"SELECT body, namespace, name FROM objects WHERE {where} "  # noqa: S608
                "ORDER BY namespace, name LIMIT ?", (*values, limit)
            ).fetchall()  # fmt: skip
            remaining = 0
            if len(rows) == limit:
                count = reader.execute(
                    f"SELECT count(*) FROM objects WHERE {where}", values  # noqa: S608
                ).fetchone()[0]  # fmt: skip
                remaining = count - len(rows)
        last = (rows[-1][1], rows[-1][2]) if rows else None
        return Page([row[0] for row in rows], version, remaining, last)

    def changes(
        self, resource: str, after: int, *, namespace: str | None = None, limit: int = 1000
    ) -> list[Change]:
        """Return a resource's changes after a version, oldest first. Raises Compacted."""
        reader = self._reader()
        with self._snapshot(reader):
            first = reader.execute("SELECT coalesce(min(version), 2) FROM changes").fetchone()[0]
            if after < first - 1:
                raise Compacted
            rows = reader.execute(
                "SELECT version, type, resource, namespace, name, uid, old_labels, body "
                "FROM changes WHERE resource=? AND version>? AND namespace=coalesce(?, namespace) "
                "ORDER BY version LIMIT ?", (resource, after, namespace, limit)
            ).fetchall()  # fmt: skip
        return [Change(row[0], row[1], Key(*row[2:5]), *row[5:]) for row in rows]

    def has_reached(self, version: int) -> bool:
        """Whether there is such a version: committed, though perhaps not yet announced.

        A reader may see a commit, and a client come back with its version, before the writer
        thread has come to note it in ``version``.
        """
        return version <= self.version or version <= self._log_end(self._reader())

    def compacted(self, version: int) -> bool:
        """Whether the change log no longer reaches back to a version."""
        row = self._reader().execute("SELECT coalesce(min(version), 2) FROM changes").fetchone()
        return bool(version < row[0] - 1)

    def in_namespace(
        self, namespace: str, *, limit: int = -1, _on: sqlite3.Connection | None = None
    ) -> list[Key]:
        """Return keys of objects in a namespace."""
        rows = (_on or self._reader()).execute(
            "SELECT resource, namespace, name FROM objects WHERE namespace=? LIMIT ?",
            (namespace, limit),
        )
        return [Key(*row) for row in rows]

    def dependents(self, owner_uid: str) -> list[Key]:
        """Return keys of objects that name this uid in their ownerReferences."""
        rows = self._reader().execute(
            "SELECT resource, namespace, name FROM owners WHERE owner=?", (owner_uid,)
        )
        return [Key(*row) for row in rows]

    def orphans(self) -> list[Key]:
        """Return keys of objects that name an owner which does not exist."""
        rows = self._reader().execute(
            "SELECT DISTINCT resource, namespace, name FROM owners "
            "WHERE owner NOT IN (SELECT uid FROM objects)"
        )
        return [Key(*row) for row in rows]

    def find_uid(self, uid: str) -> Key | None:
        """Return the key of the object with a uid."""
        row = self._reader().execute(
            "SELECT resource, namespace, name FROM objects WHERE uid=?", (uid,)
        ).fetchone()  # fmt: skip
        return Key(*row) if row else None

    def existing(self, uids: Iterable[str]) -> set[str]:
        """Return those uids that objects have."""
        reader = self._reader()
        found = (reader.execute("SELECT uid FROM objects WHERE uid=?", (u,)) for u in uids)
        return {row[0] for rows in found for row in rows}

    def written_before(self, resource: str, before_s: int, limit: int = 500) -> list[Key]:
        """Return keys of objects last written before a time (seconds since 1970)."""
        rows = self._reader().execute(
            "SELECT resource, namespace, name FROM objects WHERE resource=? AND written_s<? "
            "LIMIT ?", (resource, before_s, limit)
        )  # fmt: skip
        return [Key(*row) for row in rows]

    @contextlib.contextmanager
    def _snapshot(self, reader: sqlite3.Connection) -> Iterator[None]:
        reader.execute("BEGIN")
        try:
            yield
        finally:
            reader.execute("ROLLBACK")

    @staticmethod
    def _log_end(reader: sqlite3.Connection) -> int:
        row = reader.execute("SELECT coalesce(max(version), 1) FROM changes").fetchone()
        return int(row[0])
