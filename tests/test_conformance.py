"""Eight combinations x every kind of content: valid by the schemas, lawful, and nothing lost.

A client of either API, an upstream of either API, streamed and whole. The upstream's bytes are cut
at random places (the same each time), and the client's are read with the official SDK's types.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nursling.engine.limits import DEFAULT_LIMITS
from support import reading, table
from support.conformance import carry, cut, request_body
from support.formats import FORMATS, stream_to, through
from support.kinds import KINDS, Kind
from support.scripted import APIS, Api


@pytest.mark.fault(32, "V")
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"from-{api}")
@pytest.mark.parametrize("client", APIS, ids=lambda api: f"to-{api}")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.replace(" ", "-"))
def test_content_arrives(kind: Kind, client: Api, upstream: Api, stream: bool) -> None:
    """What the upstream says is what the client finds; only a stated gap is one."""
    verdict = carry(kind, client, upstream, stream=stream)
    if client in kind.not_asked:
        assert verdict == "unaskable"
    elif kind.upstream(upstream, client) is None:
        assert verdict in {"unsayable", "refused"}
    else:
        assert verdict == ("rest" if kind.only_same and client != upstream else "whole")


def test_a_second_choice_arrives_like_the_first() -> None:
    """Two choices (n = 2) from chat to chat: both choices, each with its own text."""
    kind = next(kind for kind in KINDS if kind.choices == 2)
    assert kind.chat is not None
    request = FORMATS["chat"].parse_request(request_body(kind, "chat", stream=True))
    decoder = FORMATS["chat"].decoder(request, DEFAULT_LIMITS)
    batches = through(decoder, cut(kind.chat.stream(), "n=2"))
    choices, _ = reading.chat_stream(stream_to("chat", request, batches), n=2)
    assert [said.texts for said in choices] == [("Heads.",), ("Tails, this time.",)]


def test_the_table_in_the_readme_is_what_the_tests_find() -> None:
    """README's table is true. Written by `uv run python tests/support/table.py`."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert table.between_markers(readme) == table.render()
