"""The people of a lab: argon2id passwords, one-time passwords and links, lock-out after repeated failures."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from ailab.errors import Conflict, Forbidden, NotFound, UsageError, WrongPassword
from ailab.events import now, record
from ailab.i18n import _
from ailab.store import Store, login_codes
from ailab.store import users as table

if TYPE_CHECKING:
    from argon2 import PasswordHasher

# Of names without a user: more than anybody can try while one of them is locked.
STRANGERS_KNOWN = 10_000
FAILURES_ALLOWED = 5
LOCKED_SECONDS = 300.0
LINK_SECONDS = 600.0
SHORTEST_PASSWORD = 10
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
# Without letters and digits that look alike.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class User:
    name: str
    admin: bool


def new_password() -> str:
    """A password to be typed once: 20 letters and digits in groups of 5, about 99 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _letter in range(5)) for _group in range(4))


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


class Users:
    """The users in a lab's store. Each change and each login is an event."""

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        # One check at a time: argon2id takes 64 MiB on purpose, and guesses must not be made side by side.
        self._one_at_a_time = threading.Lock()
        # Names that no user has are locked as others are, so that a lock does not tell who there is: the name, its
        # failures, and until when it is locked.
        self._strangers: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        return PasswordHasher()

    @cached_property
    def _nobodys_hash(self) -> str:
        return self._hasher.hash(secrets.token_hex())

    def add(self, name: str, *, admin: bool, actor: str) -> str:
        """Make a user and return their one-time password. Raises `Conflict` for a name that is taken."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                _("{name} will not do as a user name.").format(name=name),
                remedy=_("Use up to 32 small letters, digits and -, a letter first."),
            )
        password = new_password()
        values = {"name": name, "password_hash": self._hasher.hash(password), "admin": admin, "must_change": True}
        with self._engine.begin() as connection:
            if connection.execute(select(table.c.name).where(table.c.name == name)).first():
                raise Conflict(_("There is a user {name} already.").format(name=name))
            connection.execute(insert(table).values(**values, created_at=now()))
            record(connection, actor=actor, kind="user", subject=name, after="added")
        return password

    def names(self) -> list[str]:
        with self._engine.connect() as connection:
            return list(connection.execute(select(table.c.name).order_by(table.c.created_at)).scalars())

    def _row(self, name: str) -> dict[str, Any] | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).mappings().first()
            return dict(row) if row else None

    def is_admin(self, name: str) -> bool:
        row = self._row(name)
        return row is not None and bool(row["admin"])

    def must_change(self, name: str) -> bool:
        """Whether this user has yet to choose a password of their own."""
        row = self._row(name)
        return bool(row and row["must_change"])

    def may_replace(self, name: str) -> bool:
        """Whether this user may choose a password without naming the old one: none yet, or a link let them in."""
        row = self._row(name)
        return bool(row and (row["must_change"] or row["link_until"] > time.time()))

    def log_in(self, name: str, password: str, *, address: str, one_time: bool = True) -> User:
        """The user, when the password is right and the account is not locked; else `Forbidden`.

        `FAILURES_ALLOWED` wrong passwords lock the name for `LOCKED_SECONDS`, whether a user has it or not. A one-time
        password works once, and not at all unless `one_time`.
        """
        with self._one_at_a_time:
            row = self._row(name)
            nobodys = self._strangers.get(name, (0, 0.0))
            failures, locked_until = (row["failures"], row["locked_until"]) if row else nobodys
            locked = locked_until > time.time()
            right = self._matches(row, password)
            if row is None or locked or not right or row["spent"]:
                known = row is not None
                seconds = locked_until - time.time() if locked else 0.0
                if not locked and not right:
                    seconds = self._count_failure(name, failures + 1, known=known)
                raise self._refuse(name, known=known, locked=locked, right=right, seconds=seconds, address=address)
            if row["must_change"] and not one_time:
                raise Forbidden(_("Choose a password of your own first."), remedy=_("Log in with a browser."))
            with self._engine.begin() as connection:
                change = update(table).where(table.c.name == name)
                connection.execute(change.values(failures=0, locked_until=0.0, spent=row["must_change"]))
                record(connection, actor=name, kind="login", subject=name, after="in", detail={"address": address})
            return User(name, row["admin"])

    def _matches(self, row: dict[str, Any] | None, password: str) -> bool:
        from argon2.exceptions import VerificationError

        # Made for every name alike: the first guess of a process would tell by its time who there is.
        nobodys = self._nobodys_hash
        try:
            return self._hasher.verify(row["password_hash"] if row else nobodys, password)
        except VerificationError:
            return False

    def _count_failure(self, name: str, failures: int, *, known: bool) -> float:
        """Note a wrong password, which locks the name when it was one too many: for how many seconds."""
        locks = failures >= FAILURES_ALLOWED
        kept, until = (0, time.time() + LOCKED_SECONDS) if locks else (failures, 0.0)
        if known:
            with self._engine.begin() as connection:
                change = update(table).where(table.c.name == name)
                connection.execute(change.values(failures=kept, locked_until=until))
        else:
            self._strangers[name] = (kept, until)
            self._strangers.move_to_end(name)
            while len(self._strangers) > STRANGERS_KNOWN:
                self._strangers.popitem(last=False)
        return LOCKED_SECONDS if locks else 0.0

    def _refuse(self, name: str, *, known: bool, locked: bool, right: bool, seconds: float, address: str) -> Forbidden:
        """Record a failed login, and say what the person may know. `seconds`: how long the name is locked from now."""
        reason = "locked" if locked else "one-time password used" if right else "wrong password"
        with self._engine.begin() as connection:
            detail = {"address": address, "reason": reason if known else "no such user"}
            record(connection, actor=name[:64], kind="login", subject=name[:64], after="refused", detail=detail)
            if seconds and not locked:
                lock = {"address": address, "seconds": LOCKED_SECONDS}
                record(connection, actor=name[:64], kind="login", subject=name[:64], after="locked", detail=lock)
        if seconds:
            return Forbidden(
                _("Too many wrong passwords: {name} is locked for {minutes} more minutes.").format(
                    name=name, minutes=int(-(-max(1.0, seconds) // 60))
                ),
                remedy=_("Wait, or log in with a link: ailab open"),
            )
        if right:
            return Forbidden(
                _("This one-time password has been used."), remedy=_("Get a login link on the machine: ailab open")
            )
        return WrongPassword(_("Wrong user name or password."), remedy=_("Forgotten? On the machine: ailab open"))

    def make_link_code(self, name: str, *, actor: str) -> str:
        """A code that logs `name` in once within `LINK_SECONDS`. It also ends a lock: who asks owns the machine."""
        if self._row(name) is None:
            raise NotFound(_("There is no user {name}.").format(name=name))
        code = secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            connection.execute(delete(login_codes).where(login_codes.c.expires < time.time()))
            expires = time.time() + LINK_SECONDS
            connection.execute(insert(login_codes).values(digest=_digest(code), user=name, expires=expires))
            connection.execute(update(table).where(table.c.name == name).values(failures=0, locked_until=0.0))
            record(connection, actor=actor, kind="login-link", subject=name, after="made")
        return code

    def redeem(self, code: str, *, address: str) -> User:
        """The user that a login link was made for, once; else `Forbidden`."""
        with self._engine.begin() as connection:
            mine = login_codes.c.digest == _digest(code)
            row = connection.execute(select(login_codes).where(mine)).mappings().first()
            connection.execute(delete(login_codes).where(mine))
            user = row and connection.execute(select(table).where(table.c.name == row["user"])).mappings().first()
            valid = row is not None and user is not None and row["expires"] > time.time()
            subject = row["user"] if row else "?"
            after = "in" if valid else "refused"
            if valid:
                change = update(table).where(table.c.name == subject)
                connection.execute(change.values(link_until=time.time() + LINK_SECONDS))
            detail = {"address": address, "reason": "link"}
            record(connection, actor=subject, kind="login", subject=subject, after=after, detail=detail)
        if not valid or user is None:
            raise Forbidden(_("This login link is used or too old."), remedy=_("Get a new one: ailab open"))
        return User(user["name"], user["admin"])

    def change_password(self, name: str, new: str, *, current: str | None, address: str) -> None:
        """Set the user's own password. `current` may be None only while `may_replace` says so."""
        if len(new) < SHORTEST_PASSWORD:
            raise UsageError(
                _("A password has at least {count} characters.").format(count=SHORTEST_PASSWORD),
                remedy=_("A few words that only you would put together are good."),
            )
        if not self.may_replace(name):
            self.log_in(name, current or "", address=address)
        with self._one_at_a_time:
            hashed = self._hasher.hash(new)
        with self._engine.begin() as connection:
            values = {"password_hash": hashed, "must_change": False, "spent": False, "link_until": 0.0}
            connection.execute(update(table).where(table.c.name == name).values(**values))
            record(connection, actor=name, kind="user", subject=name, after="password changed")
