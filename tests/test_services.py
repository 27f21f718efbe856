"""Services start, stop and restart, and a missing one is reported."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis as redis_library

from tests import services


def test_redis_restarts_on_the_same_port() -> None:
    redis = services.redis("restarted")
    if redis.process is None:
        pytest.skip("this Redis is external and cannot be stopped")
    redis.stop()
    assert not redis.answers()
    redis.launch()
    assert redis.answers()


def test_frozen_redis_does_not_answer_and_keeps_its_data() -> None:
    redis = services.redis("restarted")
    with (
        redis_library.Redis.from_url(redis.url) as patient,
        redis_library.Redis.from_url(redis.url, socket_timeout=0.2, retry=None) as client,
    ):
        patient.set("word", "hello")
        with redis.frozen(), pytest.raises(redis_library.TimeoutError):
            client.get("word")
        assert patient.get("word") == b"hello"


def test_service_is_started_once() -> None:
    assert services.redis() is services.redis()


def test_copied_database_has_the_rows_of_its_template() -> None:
    postgres = services.postgres()
    template = postgres.create()
    with psycopg.connect(template) as connection:
        connection.execute("CREATE TABLE word AS SELECT 'hello' AS text")
    with psycopg.connect(postgres.create(template)) as connection:
        assert connection.execute("SELECT text FROM word").fetchall() == [("hello",)]


def test_shim_without_a_program_does_not_run(tmp_path: Path) -> None:
    shim = tmp_path / "postgres"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert not services.runs(shim)
    assert not services.runs(tmp_path / "absent")


@pytest.mark.parametrize(("on_ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_service_skips_the_test_and_fails_on_ci(
    monkeypatch, on_ci: str, outcome: type[BaseException]
) -> None:
    @services.real_part
    def find() -> None:
        raise services.Unavailable("the service")

    monkeypatch.setenv("CI", on_ci)
    with pytest.raises(outcome, match="the service"):
        find()
