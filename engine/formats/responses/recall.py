"""Items of our own replies, kept for a while, so that a client may name them by their ids.

A client of OpenAI's service need not send an earlier output item back: it names it,
`{"type": "item_reference", "id": "msg_…"}`, and the service knows. The Vercel AI SDK does so unless
it is told `store: false`. A server of another API keeps no items, so where a reply is translated
for such a client, this is who knows.

The law of this file: a reference that is known becomes the item itself before anybody reads the
request, as if the client had sent it whole, and within the limits of what a client may send. One
that is not known stays what it is: an upstream of this format may know it, another one refuses it.
What is kept is bounded in bytes, and the longest unused goes first; nobody reads what was given to
another one; and what leaves the memory of the process is lost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ... import jsontext
from ...errors import BadRequest, BodyTooLarge
from ...limits import Limits
from ..checks import JSON


BOOKKEEPING = 512
"""Bytes that an item counts for beside its JSON: its id and the tables that it stands in."""

SHARE = 8
"""An item may take this part of the room, an eighth: one cannot push out all others."""


class Recall:
    """The items that one engine remembers, by their owner and id.

    `owner` is whoever may ask for them: the name of the client's key, "" if nobody needs one.
    """

    def __init__(self, limits: Limits) -> None:
        """The room is `max_recall_bytes`; a body's limits bound what one request may bring."""
        self._limits = limits
        self._items: OrderedDict[tuple[str, str], bytes] = OrderedDict()  # longest unused first
        self.size = 0
        """Bytes that are taken; never over `max_recall_bytes`."""

    @property
    def off(self) -> bool:
        """Whether nothing is kept, by configuration."""
        return self._limits.max_recall_bytes == 0

    def __len__(self) -> int:
        return len(self._items)

    def use(self, limits: Limits) -> None:
        """Put other limits in force; what the new room does not hold is forgotten at once."""
        self._limits = limits
        self._shrink(limits.max_recall_bytes)

    def keep(self, owner: str, response: JSON) -> None:
        """Remember the output items of a finished Response, as they leave. What is too big is not.

        Call it before the client can have read the end of the reply: its next request may come
        while the last bytes are being written.
        """
        room = self._limits.max_recall_bytes
        for item in response["output"]:
            key = (owner, item["id"])
            # A copy: msgspec leaves half as much again unused behind its bytes (measured).
            text = bytes(memoryview(jsontext.dumps(item)))
            self._forget(key)
            size = BOOKKEEPING + len(text)
            if size * SHARE > room:
                continue
            self._shrink(room - size)
            self._items[key] = text
            self.size += size

    def resolve(self, owner: str, body: JSON) -> JSON:
        """Put items in the place of the references to them in a Responses request.

        `body` is not changed. Raises `BodyTooLarge` or `BadRequest` if the items together are more
        than a client could have sent, or one is named twice: a few bytes would cost us the whole
        item each time, and no client does so, since a conversation has each item once.
        """
        given = body.get("input")
        if not self._items or not isinstance(given, list):
            return body
        found: dict[int, bytes] = {}
        named: set[str] = set()
        size = 0
        for number, item in enumerate(given):
            text = self._find(owner, item)
            if text is not None:
                own = referred(item)
                if own in named:
                    raise BadRequest(f"the item {own!r} is named twice", param=f"input[{number}]")
                named.add(own)
                found[number] = text
                size += len(text)
                if size > self._limits.max_body_bytes:
                    most = self._limits.max_body_bytes
                    raise BodyTooLarge(
                        f"the items that the request names are over {most} bytes", param="input"
                    )
        if not found:
            return body
        resolved = list(given)
        for number, item in zip(found, self._read(found), strict=True):
            resolved[number] = item
        return {**body, "input": resolved}

    def _find(self, owner: str, item: Any) -> bytes | None:
        """The JSON of the item that an input item refers to, used just now."""
        key = (owner, referred(item))
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key]

    def _read(self, found: dict[int, bytes]) -> list[Any]:
        text = b"[%b]" % b",".join(found.values())
        try:
            items: list[Any] = jsontext.loads_request(
                text,
                max_depth=self._limits.max_json_depth,
                max_nodes=self._limits.max_json_nodes,
            )
        except ValueError as error:
            raise BadRequest(f"the items that the request names: {error}", param="input") from None
        return items

    def _shrink(self, room: int) -> None:
        while self.size > room:
            self._forget(next(iter(self._items)))

    def _forget(self, key: tuple[str, str]) -> None:
        text = self._items.pop(key, None)
        if text is not None:
            self.size -= BOOKKEEPING + len(text)


def referred(item: Any) -> str:
    """The id that a reference names; "" if an input item is none. Its type may be left out."""
    if not isinstance(item, dict):
        return ""
    kind, own = item.get("type"), item.get("id")
    reference = kind == "item_reference" or (kind is None and "role" not in item)
    return own if reference and isinstance(own, str) else ""
