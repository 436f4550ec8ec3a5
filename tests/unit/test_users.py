"""Who may log in: passwords, one-time passwords and links, lock-out, and what the events say of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ailab import events
from ailab.access import users as module
from ailab.access.users import Users
from ailab.errors import Conflict, Forbidden, UsageError
from ailab.store import Store

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab.db").open()


@pytest.fixture
def users(store: Store) -> Users:
    return Users(store)


@pytest.fixture
def alice(users: Users) -> str:
    users.add("alice", admin=True, actor="test")
    users.change_password("alice", PASSWORD, current=None, address="")
    return "alice"


def test_a_one_time_password_works_once(users: Users) -> None:
    password = users.add("bob", admin=False, actor="test")
    assert users.must_change("bob")
    assert users.log_in("bob", password, address="").name == "bob"
    with pytest.raises(Forbidden, match="has been used"):
        users.log_in("bob", password, address="")


def test_five_wrong_passwords_lock_even_the_right_one_out_and_the_events_show_it(
    users: Users, store: Store, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _attempt in range(module.FAILURES_ALLOWED):
        with pytest.raises(Forbidden):
            users.log_in(alice, "wrong", address="10.0.0.9")
    with pytest.raises(Forbidden, match="locked"):
        users.log_in(alice, PASSWORD, address="")
    logins = [event for event in events.newest(store, 20) if event["kind"] == "login"]
    assert [event["after"] for event in logins] == ["refused", "locked", *["refused"] * 5]
    assert logins[-1]["detail"] == {"address": "10.0.0.9", "reason": "wrong password"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + module.LOCKED_SECONDS + 1)
    assert users.log_in(alice, PASSWORD, address="").admin


def test_a_right_password_forgives_earlier_failures(users: Users, alice: str) -> None:
    for _round in range(2):
        for _attempt in range(module.FAILURES_ALLOWED - 1):
            with pytest.raises(Forbidden):
                users.log_in(alice, "wrong", address="")
        users.log_in(alice, PASSWORD, address="")


def test_a_link_logs_in_once_and_not_for_ever(users: Users, alice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = users.make_link_code(alice, actor="test")
    assert users.redeem(code, address="").name == alice
    late = users.make_link_code(alice, actor="test")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + module.LINK_SECONDS + 1)
    for spent in (code, late, "", "guess"):
        with pytest.raises(Forbidden):
            users.redeem(spent, address="")


def test_a_password_is_changed_only_with_the_current_one(users: Users, alice: str) -> None:
    with pytest.raises(Forbidden):
        users.change_password(alice, "another password", current="wrong", address="")
    with pytest.raises(UsageError, match="at least"):
        users.change_password(alice, "short", current=PASSWORD, address="")
    users.change_password(alice, "another password", current=PASSWORD, address="")
    assert users.log_in(alice, "another password", address="")


def test_a_login_link_lets_one_choose_a_new_password_for_a_while(
    users: Users, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = users.make_link_code(alice, actor="test")
    assert not users.may_replace(alice), "a link that nobody has followed opens nothing"
    users.redeem(code, address="")
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + module.LINK_SECONDS + 1)
        assert not users.may_replace(alice)
    assert users.may_replace(alice) and not users.must_change(alice)
    users.change_password(alice, "another one entirely", current=None, address="")
    assert not users.may_replace(alice)
    assert users.log_in(alice, "another one entirely", address="").name == alice


def test_names(users: Users, alice: str) -> None:
    with pytest.raises(Conflict):
        users.add(alice, admin=False, actor="test")
    for name in ("", "Root", "a b", "../x", "x" * 33):
        with pytest.raises(UsageError):
            users.add(name, admin=False, actor="test")


def test_nothing_secret_is_kept_in_the_clear(users: Users, store: Store, alice: str) -> None:
    code = users.make_link_code(alice, actor="test")
    store.engine.dispose()
    kept = b"".join(path.read_bytes() for path in store.path.parent.glob("lab.db*"))
    assert PASSWORD.encode() not in kept and code.encode() not in kept
    assert store.path.stat().st_mode & 0o077 == 0
