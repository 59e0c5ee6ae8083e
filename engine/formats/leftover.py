"""The places in a client's body that the normal form has no place for, by their paths.

The law of this file: it names what another format would lose, `messages[0].cache_control`, and
judges nothing. Each format describes in one table what it reads; the walk names the rest: members
that are not in the table, words that mean nothing to us, values of a type that was not read, and
the one of two members with one meaning that gave way to the other. What says nothing (null, an
empty list or object) is not named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from .checks import JSON, join


MAX_PLACES = 64
"""Places that are named; the others are counted. They go into a header and a log line."""

Known: TypeAlias = "Shape | Kinds | frozenset[str] | type[str] | None"
"""What is read of a value, or of each element of a list: members, words, only a string, or (None)
all of it."""


class Shape(NamedTuple):
    """An object, and the members of it that have a place."""

    members: Mapping[str, Known]
    twins: tuple[tuple[str, str], ...] = ()
    """Pairs of dotted paths that mean the same: the first is not read where the second says
    something."""


class Kinds(NamedTuple):
    """An object whose `tag` says which members it has."""

    shapes: Mapping[str, Shape]
    tag: str = "type"
    default: str = ""
    """The kind of an object that does not say."""
    lost: bool = False
    """Whether an object of another kind is lost. If not it is an opaque thing, named elsewhere."""


def members(*names: str, **inner: Known) -> Shape:
    """Describe an object: members that are read whole, and members with something inside."""
    return Shape(dict.fromkeys(names) | inner)


def leftover(body: JSON, known: Shape) -> list[str]:
    """Name the places, the first `MAX_PLACES` of them; the last entry counts the others.

    `known` has the paths of what is looked into: the members of the body itself are not named,
    they are `Request.extra`. `body` has been parsed: what the format needs has the right type.
    """
    places = _places(body, known)
    named = list(islice(places, MAX_PLACES))
    more = sum(1 for _ in places)
    return [*named, f"and {more} more"] if more else named


def _places(body: JSON, known: Shape) -> Iterator[str]:
    for path, inner in known.members.items():
        yield from _beyond(_at(body, path), inner, path)
    yield from _twins(body, known, "")


def _beyond(value: Any, known: Known, where: str) -> Iterator[str]:
    if known is None or _is_nothing(value):
        return
    if isinstance(value, list):
        for number, element in enumerate(value):
            yield from _beyond(element, known, f"{where}[{number}]")
    elif isinstance(known, frozenset | type):
        if not isinstance(value, str) or (isinstance(known, frozenset) and value not in known):
            yield where
    elif isinstance(value, dict):
        shape = known if isinstance(known, Shape) else _shape_of(value, known)
        if shape is not None:
            yield from _of_object(value, shape, where)
        elif isinstance(known, Kinds) and known.lost:
            yield where


def _of_object(value: JSON, shape: Shape, where: str) -> Iterator[str]:
    for name, member in value.items():
        if name in shape.members:
            yield from _beyond(member, shape.members[name], join(where, name))
        elif not _is_nothing(member):
            yield join(where, name)
    yield from _twins(value, shape, where)


def _shape_of(value: JSON, known: Kinds) -> Shape | None:
    kind = value.get(known.tag) or known.default
    return known.shapes.get(kind) if isinstance(kind, str) else None


def _twins(value: JSON, shape: Shape, where: str) -> Iterator[str]:
    for loser, winner in shape.twins:
        said, other = _at(value, loser), _at(value, winner)
        if not _is_nothing(said) and not _is_nothing(other) and said != other:
            yield join(where, loser)


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_nothing(value: Any) -> bool:
    return value is None or value in ([], {})
