"""What the driver says, in our words; its own text never becomes part of the message."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg
from sqlalchemy import exc

from controlplane.store.sql.errors import meaning
from treaty.errors import ConflictError, Corrupt, FoedusError, InvalidInput, ResourceExhausted, Unavailable


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (pg.DiskFull("secret"), ResourceExhausted),
        (pg.TooManyConnections("secret"), ResourceExhausted),
        (pg.DataCorrupted("secret"), Corrupt),
        (pg.UndefinedTable("secret"), Corrupt),
        (pg.SerializationFailure("secret"), Unavailable),
        (pg.LockNotAvailable("secret"), Unavailable),
        (pg.AdminShutdown("secret"), Unavailable),
        (psycopg.OperationalError("secret"), Unavailable),
    ],
)
def test_a_servers_state_is_translated_by_its_class(cause: psycopg.Error, expected: type[FoedusError]) -> None:
    error = meaning(exc.DBAPIError("SELECT secret", None, cause))
    assert type(error) is expected
    assert "secret" not in str(error)


def test_the_other_failures_have_a_meaning_too() -> None:
    assert type(meaning(exc.TimeoutError("secret"))) is Unavailable
    assert type(meaning(exc.NoSuchTableError("secret"))) is Corrupt
    assert type(meaning(exc.IntegrityError("s", None, pg.UniqueViolation("secret")))) is ConflictError
    assert type(meaning(exc.DataError("s", None, psycopg.DataError("secret")))) is InvalidInput
