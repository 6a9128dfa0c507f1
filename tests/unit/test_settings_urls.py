"""Which URLs the drivers read correctly, and the error messages for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.domain.errors import ConfigError
from notifier.settings import load_settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@/postgres?host=/tmp/sockets",
        "postgresql://postgres@/of%20mine?host=/tmp/sockets",
        "postgres://host/db",
        "postgresql://u:p%40%2F%3F%23@host:5433/db",
        "postgresql://u:p@[::1]:5433/db",
        "postgresql://u:p@one:1,two:2/db?target_session_attrs=primary",
        "postgresql://%2Ftmp%2Fsockets/db",
        "postgresql:///?host=one,two&port=1,2&user=u&password=p&dbname=db",
        "postgresql://h/db?sslmode=verify-full&sslrootcert=/dev/null&sslnegotiation=direct",
        "postgresql://h/db?application_name=mine&options=-c%20jit%3Doff",
    ],
)
def test_a_complete_database_url_is_accepted(tmp_path: Path, url: str) -> None:
    settings = load_settings({}, cwd=tmp_path, overrides={"database.url": url})
    assert settings.database.url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://", "it names no host; it names no database"),
        ("postgresql:///db", "it names no host"),
        ("postgresql://u:s3cret@/db", "it names no host"),
        (
            "postgresql://u:s3cret@straße.test:5432/db",
            "its host must be written in ASCII: xn--strae-oqa.test instead of straße.test",
        ),
        ("postgresql://u:s3cret@h", "it names no database"),
        ("postgresql://u:s3cret@h/", "it names no database"),
        ("postgresql://u:s3cret@[::1/x", "it cannot be read"),
        ("postgresql://u:s3cret@h:abc/x", "its port is not an integer"),
        ("postgresql://u:s3cret@h:0/x", "its port is not an integer"),
        ("postgresql://u:s3cret@h:65536/x", "its port is not an integer"),
        ("postgresql:///d?host=/s3cret&port=x", "its port is not an integer"),
        (
            "postgresql:///d?host=a,b,c&port=1,2",
            "its number of ports differs from its number of hosts",
        ),
        ("postgresql://u:s3cret@a,,b/x", "its host cannot be read"),
        ("postgresql://u:s3/cret@h/x", "must be written as %40 %2F %3F %23"),
        ("postgresql://u:12/s3cret@h/x", "must be written as %40 %2F %3F %23"),
        ("postgresql://u:s3#cret@h/x", "must be written as %40 %2F %3F %23"),
        ("postgresql://u:s3@cret@h/x", "must be written as %40 %2F %3F %23"),
        ("postgresql://u:s3?cret@h/x", "it cannot be read"),
        ("postgresql://u:12?s3cret=x@h/x", "it has an unknown query key"),
        ("postgresql://u:s3cret@h/x?sslmod=require", 'did you mean "sslmode"?'),
        ("postgresql://u:s3cret@h/x?sslmode", "it cannot be read"),
        ("postgresql://u:p@h/x?sslmode=s3cret", "its sslmode is not one of allow, disable, prefer"),
        ("postgresql://u:p@h/x?gsslib=s3cret", "its gsslib is not one of gssapi, sspi"),
        ("postgresql://u:p@h/x?sslnegotiation=direct", "needs sslmode=require"),
        ("postgresql://u:p@h/x?sslrootcert=/s3cret", "its sslrootcert names a file that cannot"),
        (
            "postgresql://u:s3cret@h/x?sslrootcert=/dev/null",
            "its sslrootcert has no effect without sslmode=verify-full",
        ),
        (
            "postgresql://u:s3cret@h/x?sslmode=prefer&sslcrl=/dev/null",
            "its sslcrl has no effect without sslmode=verify-full",
        ),
        ("postgresql://u:s3cret@h/x\0", "a character that cannot be printed"),
    ],
)
def test_a_wrong_database_url_is_one_line_without_parts_of_the_url(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"NOTIFIER_DATABASE_URL": url}, cwd=tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(
        "database.url (NOTIFIER_DATABASE_URL): "
        "got ***, expected a URL like postgresql://user:password@host/database: "
    )
    assert message in line
    assert not any(piece in line for piece in ("s3", "cret"))


@pytest.mark.parametrize(
    "url",
    [
        "amqp://host",
        "amqps://u:p@host:5671/v",
        "amqp://u:p@[::1]//",
        "amqps://host/v?cafile=/dev/null&no_verify_ssl=0&auth=external",
    ],
)
def test_a_complete_broker_url_is_accepted(tmp_path: Path, url: str) -> None:
    settings = load_settings({}, cwd=tmp_path, overrides={"broker.url": url})
    assert settings.broker.url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("amqp://", "it names no host"),
        ("amqp://u:s3cret@[::1/x", "it cannot be read"),
        ("amqp://u:s3/cret@h/x", "its port is not an integer"),
        ("amqp://u:s3cret@h:abc/x", "its port is not an integer"),
        ("amqps://u:s3cret@h/x?ca_file=/x", 'did you mean "cafile"?'),
        ("amqps://u:s3cret@h/x?cafile=/s3cret", "its cafile names a file that cannot be read"),
        ("amqp://u:s3cret@h/x?cafile=/dev/null", "its cafile has no effect without amqps://"),
        ("amqps://u:s3cret@h/x?no_verify_ssl=false", "its no_verify_ssl is not one of 0, 1"),
    ],
)
def test_a_wrong_broker_url_is_one_line_without_parts_of_the_url(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=r"got \*\*\*, expected a URL like amqp://") as caught:
        load_settings({"NOTIFIER_BROKER_URL": url}, cwd=tmp_path)
    assert message in str(caught.value)
    assert "cret" not in str(caught.value)
