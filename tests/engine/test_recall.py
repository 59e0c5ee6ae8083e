"""What is remembered of our own replies: by whom it may be named, and how much of it there is."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from nursling.engine.errors import BadRequest, BodyTooLarge
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.formats.responses.recall import BOOKKEEPING, SHARE, Recall
from nursling.engine.limits import MIB, Limits
from nursling.engine.request import Message, OpaqueItem, Text


Json = dict[str, Any]


def recall(room: int = MIB, **limits: Any) -> Recall:
    return Recall(Limits(max_recall_bytes=room, **limits))


def message(own: str, text: str = "Hi") -> Json:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {
        "id": own, "type": "message", "status": "completed", "role": "assistant",
        "content": content,
    }  # fmt: skip


def response(*items: Json) -> Json:
    return {"object": "response", "output": list(items)}


def ref(own: Any) -> Json:
    return {"type": "item_reference", "id": own}


def asked(*items: Any) -> Json:
    return {"model": "m", "input": list(items)}


def knows(memory: Recall, own: str, owner: str = "") -> bool:
    body = asked(ref(own))
    return memory.resolve(owner, body) is not body


def test_a_reference_becomes_the_item() -> None:
    """The item stands in its place whole, and the client's own body is left as it was."""
    memory, question = recall(), {"role": "user", "content": "Hi"}
    memory.keep("", response(message("msg_a", "Ümlaut \U0001f40e"), message("msg_b")))
    body = asked(question, ref("msg_a"), question, ref("msg_b"))
    before = json.dumps(body)
    resolved = memory.resolve("", body)
    assert resolved == asked(
        question, message("msg_a", "Ümlaut \U0001f40e"), question, message("msg_b")
    )
    assert json.dumps(body) == before
    assert RESPONSES.parse_request(resolved).items[1] == Message(
        role="assistant", content=[Text("Ümlaut \U0001f40e")]
    )


NO_REFERENCES: dict[str, Any] = {
    "a text": "msg_a",
    "nothing": None,
    "the item itself": [message("msg_a", "changed")],
    "a message without its type": [{"role": "user", "content": "Hi", "id": "msg_a"}],
    "another type": [{"type": "function_call", "id": "msg_a"}],
    "an id that is none": [ref(3), ref(["msg_a"]), ref(None), ref("")],
    "no object": ["msg_a", None, 3],
    "an unknown id": [ref("msg_z")],
}


@pytest.mark.parametrize("given", NO_REFERENCES.values(), ids=NO_REFERENCES)
def test_all_else_stays(given: Any) -> None:
    """What is no reference, or one to a thing nobody remembers, is left to the parser."""
    memory = recall()
    memory.keep("", response(message("msg_a")))
    body = {"model": "m", "input": given}
    assert memory.resolve("", body) is body


def test_the_type_may_be_left_out() -> None:
    """A bare id is a reference, as the parser reads it."""
    memory = recall()
    memory.keep("", response(message("msg_a")))
    assert memory.resolve("", asked({"id": "msg_a"})) == asked(message("msg_a"))
    [item] = RESPONSES.parse_request(asked({"id": "msg_z"})).items
    assert item == OpaqueItem("item_reference", "input[0]")


def test_nobody_reads_what_another_was_given() -> None:
    """An id is known to the key that got it, and to no other; not even to one without a name."""
    memory = recall()
    memory.keep("alice", response(message("msg_a", "secret")))
    assert knows(memory, "msg_a", "alice")
    assert not knows(memory, "msg_a", "bob")
    assert not knows(memory, "msg_a", "")


def test_the_longest_unused_goes_first() -> None:
    """Room for ten: the eleventh takes the place of the one that was not named since."""
    size = BOOKKEEPING + len(json.dumps(message("msg_00"), separators=(",", ":")))
    memory = recall(10 * size)
    memory.keep("", response(*(message(f"msg_{number:02}") for number in range(10))))
    assert (len(memory), memory.size) == (10, 10 * size)
    assert knows(memory, "msg_00")
    memory.keep("", response(message("msg_10")))
    assert not knows(memory, "msg_01")
    assert knows(memory, "msg_00")
    assert knows(memory, "msg_10")
    assert memory.size == 10 * size


def test_a_smaller_room_is_in_force_at_once() -> None:
    """The longest unused goes first, also then; a larger room takes more."""
    size = BOOKKEEPING + len(json.dumps(message("msg_00"), separators=(",", ":")))
    memory = recall(10 * size)
    memory.keep("", response(*(message(f"msg_{number:02}") for number in range(10))))
    memory.use(Limits(max_recall_bytes=3 * size - 1))
    assert (len(memory), memory.size) == (2, 2 * size)
    assert knows(memory, "msg_09")
    memory.use(Limits(max_recall_bytes=10 * size))
    memory.keep("", response(*(message(f"msg_{number:02}") for number in range(20, 28))))
    assert len(memory) == 10


def test_an_item_is_kept_once() -> None:
    """The same id again replaces what was there, and is counted once."""
    memory = recall()
    memory.keep("", response(message("msg_a", "x" * 100)))
    memory.keep("", response(message("msg_a", "y")))
    assert memory.resolve("", asked(ref("msg_a"))) == asked(message("msg_a", "y"))
    assert (len(memory), memory.size < BOOKKEEPING + 200) == (1, True)


def test_one_item_does_not_push_out_the_others() -> None:
    """What would take more than its share of the room is not kept; what was there stays."""
    memory = recall()
    memory.keep("", response(message("msg_a")))
    memory.keep("", response(message("msg_big", "x" * (MIB // SHARE)), message("msg_b")))
    assert (knows(memory, "msg_a"), knows(memory, "msg_big"), knows(memory, "msg_b")) == (
        True, False, True,
    )  # fmt: skip


def test_no_room_is_off() -> None:
    """With a room of 0 nothing is kept."""
    memory = recall(0)
    memory.keep("", response(message("msg_a")))
    assert memory.off
    assert (len(memory), memory.size, knows(memory, "msg_a")) == (0, 0, False)
    assert not recall(1).off


@pytest.mark.parametrize("length", [0, 300, 20_000], ids=["tiny", "usual", "big"])
def test_memory_is_bounded(length: int) -> None:
    """Ten times as much as there is room for costs what was promised, and no more."""
    memory = recall(MIB)
    count = 10 * MIB // (BOOKKEEPING + 100 + length)
    tracemalloc.start()
    try:
        for number in range(count):
            memory.keep("alice", response(message(f"msg_{number:032x}_0", "x" * length)))
            assert memory.size <= MIB
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(memory) > 10
    assert taken < 1.1 * MIB


def test_references_are_no_way_around_the_limit_of_a_body() -> None:
    """Items that together are more than a client could send are refused before they are read."""
    memory = recall(max_body_bytes=10_000)
    names = [f"msg_{number}" for number in range(10)]
    memory.keep("", response(*[message(name, "x" * 1000) for name in names]))
    few, many = asked(*map(ref, names[:8])), asked(*map(ref, names))
    assert len(memory.resolve("", few)["input"]) == 8
    with pytest.raises(BodyTooLarge) as caught:
        memory.resolve("", many)
    assert caught.value.param == "input"


def test_an_item_is_named_once() -> None:
    """The second reference is refused in its place: six KB of them once became 32 MB."""
    memory = recall()
    memory.keep("", response(message("msg_a", "x" * 10_000), message("msg_b")))
    with pytest.raises(BadRequest, match="'msg_a' is named twice") as caught:
        memory.resolve("", asked(ref("msg_a"), ref("msg_b"), {"id": "msg_a"}))
    assert caught.value.param == "input[2]"
    unknown = asked(ref("msg_z"), ref("msg_z"))
    assert memory.resolve("", unknown) is unknown


@pytest.mark.parametrize("limit", [{"max_json_nodes": 100}, {"max_json_depth": 4}])
def test_nor_around_the_limits_of_json(limit: Json) -> None:
    """Values and levels of what is named count as those that are sent."""
    memory = recall(**limit)
    names = [f"msg_{number}" for number in range(20)]
    deep = [message(name) for name in names]
    for item in deep:
        item["content"][0]["annotations"] = [{"of": [{}]}]
    memory.keep("", response(*deep))
    with pytest.raises(BadRequest) as caught:
        memory.resolve("", asked(*map(ref, names)))
    assert caught.value.param == "input"
