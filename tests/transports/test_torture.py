"""Whatever comes to the port, it gets its one answer, and the gateway is unharmed.

Real sockets of the loopback, the real formats, a scripted upstream (`support/siege.py`). After each
attack nothing of it is left and a streamed request is answered whole. The attacks of one table come
one after the other to one server.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus

import pytest

from support.hostile_clients import CLIENTS
from support.hostile_http import HTTP
from support.hostile_json import JSON
from support.siege import besieged


@contextmanager
def attack(name: str) -> Generator[None]:
    """Say in a failure which attack it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"the attack: {name}")
        raise


def check_answer(answer: bytes, status: int) -> None:
    """Fail unless these bytes are one stamped answer with this status."""
    if not status:
        assert answer in {b"", b"<reset>"}, answer
        return
    if answer.startswith(b"HTTP/1.1 100 Continue\r\n"):
        answer = answer.partition(b"\r\n\r\n")[2]
    phrase = HTTPStatus(status).phrase.encode()
    assert answer.startswith(b"HTTP/1.1 %d %b\r\n" % (status, phrase)), answer[:300]
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.count(b"\r\nx-request-id: ") == 1
    assert answer.count(b"\r\nx-nursling-overhead-ms: ") == 1
    assert b"<reset>" not in answer
    if status >= 400:
        assert b'{"error":{' in answer


@pytest.mark.fault(35, "R")
@pytest.mark.fault(47, "R")
@pytest.mark.fault(57, "R")
@pytest.mark.parametrize("table", HTTP)
async def test_hostile_http(table: str) -> None:
    """Bytes that no honest client sends get one answer, stamped and phrased."""
    async with besieged() as siege:
        for name, (data, status) in HTTP[table].items():
            with attack(name):
                check_answer(await siege.served.raw(data), status)
                await siege.unharmed()


@pytest.mark.fault(28, "R")
@pytest.mark.fault(36, "R")
@pytest.mark.parametrize("table", JSON)
async def test_hostile_bodies(table: str) -> None:
    """Bodies that are no request are refused; hostile words in good ones are only words."""
    async with besieged() as siege:
        for name, (data, status) in JSON[table].items():
            with attack(name):
                answer = await siege.served.raw(data)
                check_answer(answer, status)
                head, _, body = answer.partition(b"\r\n\r\n")
                assert b"set-cookie" not in head.lower()
                assert status != 200 or body.count(b"data: [DONE]") == 1
                await siege.unharmed()


@pytest.mark.fault(17, "R")
@pytest.mark.fault(18, "R")
@pytest.mark.fault(19, "R")
@pytest.mark.fault(20, "R")
@pytest.mark.parametrize("name", CLIENTS)
async def test_hostile_clients(name: str) -> None:
    """Clients that stop, drip, leave, reset, pipeline or never read hurt nobody else."""
    async with besieged() as siege:
        await CLIENTS[name](siege)
        await siege.unharmed()


def test_how_many_there_are() -> None:
    """The tables have not been thinned."""
    tables = [*HTTP.values(), *JSON.values()]
    assert sum(len(table) for table in tables) + len(CLIENTS) >= 360
