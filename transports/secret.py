"""A value that must not be seen: it prints, logs and dumps as `***`.

The law of this file: the value leaves by `reveal()` and by no other way, so that every place that
sends a key somewhere can be found by searching for that one word.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import NoReturn
from urllib.parse import unquote, urlsplit


SHORTEST = 4
"""Characters of a secret that is worth hiding in prose: shorter ones are placeholders."""


class Secret:
    """A string that does not show itself. Compares in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value itself, to be sent where it belongs."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def passwords_in(url: Secret | None) -> list[Secret]:
    """Find the password of a URL, as it stands there and as it is sent."""
    password = urlsplit(url.reveal()).password if url else None
    return [Secret(password), Secret(unquote(password))] if password else []


def concealer(secrets: Iterable[Secret]) -> Callable[[str], str]:
    """Make a function that replaces these secrets by `***` in any text."""
    hidden = [secret.reveal() for secret in secrets if len(secret.reveal()) >= SHORTEST]

    def conceal(text: str) -> str:
        for value in hidden:
            text = text.replace(value, "***")
        return text

    return conceal
