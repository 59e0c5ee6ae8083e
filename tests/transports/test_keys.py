"""Who may call."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from nursling.engine.errors import Unauthorized
from nursling.transports.config import KeyEntry
from nursling.transports.keys import Keys


def entry(name: str, secret: str) -> KeyEntry:
    return KeyEntry(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest())


KEYS = [entry("one", "s1"), entry("two", "s2"), entry("three", "s3")]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer s1"}, "one"),
        ({"authorization": "bearer  s2 "}, "two"),
        ({"x-api-key": "s3"}, "three"),
        ({"authorization": "Basic abc", "x-api-key": "s3"}, "three"),
        ({"authorization": "Bearer ", "x-api-key": "s2"}, "two"),
    ],
)
def test_a_right_key_has_a_name(headers: dict[str, str], name: str) -> None:
    """Both ways to send a key work, and say whose it is."""
    assert Keys(KEYS).check(headers) == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "s1"},
        {"authorization": "Bearer s4"},
        {"authorization": "Bearer s4", "x-api-key": "s1"},
        {"x-api-key": "S1"},
        {"x-api-key": "s1 s2"},
        {"x-api-key": "\udcff"},
    ],
)
def test_a_wrong_key_is_refused(headers: dict[str, str]) -> None:
    """No key, a wrong key and a malformed one are 401, and the message does not repeat it."""
    with pytest.raises(Unauthorized) as caught:
        Keys(KEYS).check(headers)
    assert caught.value.status == 401
    assert "s4" not in caught.value.message


@pytest.mark.parametrize("secret", ["clé", "voilà", "鍵", "\U0001f511"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_beyond_ascii_is_known_by_its_bytes(secret: str, header: str) -> None:
    """UTF-8 on the wire is read as Latin-1 by servers; the key is found all the same."""
    read = secret.encode().decode("latin-1")
    value = f"Bearer {read}" if header == "authorization" else f" {read}\t"
    assert Keys([entry("k", secret)]).check({header: value}) == "k"


def test_without_keys_everyone_comes_in() -> None:
    """No configured key means an open door (`config.py` keeps it on loopback)."""
    assert Keys().open
    assert Keys().check({}) == ""
    assert not Keys(KEYS).open


def test_all_keys_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first hit does not end the search: the time tells nothing."""
    compared: list[bytes] = []
    real = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    Keys(KEYS).check({"x-api-key": "s1"})
    assert len(compared) == len(KEYS)


def test_only_hashes_are_kept() -> None:
    """No secret is anywhere in the object."""
    assert "s1" not in repr(vars(Keys(KEYS)))


def test_keys_can_be_replaced() -> None:
    """A reload takes keys away and gives new ones."""
    keys = Keys(KEYS)
    keys.replace([entry("new", "s9")])
    assert keys.check({"x-api-key": "s9"}) == "new"
    with pytest.raises(Unauthorized):
        keys.check({"x-api-key": "s1"})
