"""The lab's database is the same, however it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from ailab.errors import AilabError
from ailab.store import NEWEST, Store, metadata


def tables_of(store: Store) -> dict[str, Any]:
    """Names, types, keys and indexes of what is in the file."""
    found = inspect(store.engine)
    return {
        name: (
            # A step adds its columns at the end.
            sorted(
                (one["name"], str(one["type"]), one["nullable"], one["primary_key"]) for one in found.get_columns(name)
            ),
            sorted((one["name"], one["column_names"], one["unique"]) for one in found.get_indexes(name)),
        )
        for name in found.get_table_names()
        if name != "alembic_version"
    }


def revision_of(store: Store) -> str | None:
    with store.engine.connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrated(path: Path) -> Store:
    """One that all steps have made, from an ailab before the first of them on."""
    store = Store(path)
    store._migrate("")
    return store


def test_a_new_one_is_what_the_migrations_make(tmp_path: Path) -> None:
    made, grown = Store(tmp_path / "made.db").open(), migrated(tmp_path / "grown.db")
    assert revision_of(made) == revision_of(grown) == NEWEST
    assert tables_of(made) == tables_of(grown)
    assert set(tables_of(made)) == set(metadata.tables)


@pytest.mark.parametrize("left", ["DROP TABLE alembic_version", "DELETE FROM alembic_version"])
def test_one_that_was_cut_off_while_it_was_made_is_made_good(tmp_path: Path, left: str) -> None:
    store = Store(tmp_path / "lab.db").open()
    whole = tables_of(store)
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE schedules"))
        connection.execute(text(left))
    again = Store(tmp_path / "lab.db").open()
    assert tables_of(again) == whole and revision_of(again) == NEWEST


def test_one_of_a_newer_ailab_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab.db").open()
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(AilabError, match="written by a newer ailab"):
        Store(tmp_path / "lab.db").open()
    assert revision_of(store) == "9999"
