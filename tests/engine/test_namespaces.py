"""Tools in namespaces, between Responses, which has them, and chat, which has not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from nursling.engine.errors import BadRequest
from nursling.engine.events import ItemStarted
from nursling.engine.formats.base import Call, Rendered
from nursling.engine.formats.chat import CHAT
from nursling.engine.formats.chat.names import MAX_NAME, Names
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import (
    AllowedTools,
    CustomTool,
    FunctionTool,
    Message,
    NamedTool,
    Request,
    Text,
    Tool,
    ToolCall,
)
from support.chat import stream
from support.formats import stream_to, through, whole_to
from support.schemas import check_chat_request, check_responses_request


Json = dict[str, Any]
GET = FunctionTool(name="get", namespace="mcp__a")
PUT = CustomTool(name="put", namespace="mcp__a", description="Puts.")


def request_of(*tools: Tool, **fields: Any) -> Request:
    """A request of a program, or of the client whose `format` is given."""
    said: Json = {"model": "m", "items": [Message(role="user", content=[Text("hi")])], **fields}
    return Request(tools=list(tools), **said)


def parsed(*tools: Json, **fields: Any) -> Request:
    """A Responses client's request."""
    return RESPONSES.parse_request({"model": "m", "input": "hi", "tools": list(tools), **fields})


def namespace(name: str, *tools: str, **fields: Any) -> Json:
    functions = [{"type": "function", "name": tool} for tool in tools]
    return {"type": "namespace", "name": name, "description": "", "tools": functions, **fields}


def render(request: Request) -> Rendered:
    rendered = CHAT.render_request(request, Call(model="up", stream=False))
    check_chat_request(json.loads(json.dumps(rendered.body)))
    return rendered


def offered(rendered: Rendered) -> list[str]:
    return [tool["function"]["name"] for tool in rendered.body["tools"]]


# Names.


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (("mcp__weather", "get"), "mcp__weather__get"),
        (("mcp__weather__", "get"), "mcp__weather__get"),
        (("my server", "ge.t"), "my_server__ge_t"),
        (("", "any name is kept"), "any name is kept"),
        (("", "n" * 100), "n" * 100),
    ],
)
def test_a_name(tool: tuple[str, str], name: str) -> None:
    """Both names together, with one gap, in the characters of OpenAI's API; alone as it came."""
    names = Names(request_of(FunctionTool(namespace=tool[0], name=tool[1])))
    assert names.of(*tool) == name
    assert names.meant(name) == tool


def test_a_long_name_is_cut_and_stays_unlike_others() -> None:
    """Sixty-four characters at most, the same in each request, and each means its own tool."""
    tools = [FunctionTool(namespace="mcp__" + "n" * 60, name=f"tool_{n}") for n in range(3)]
    names, again = Names(request_of(*tools)), Names(request_of(*tools[::-1]))
    said = [names.of(tool.namespace, tool.name) for tool in tools]
    assert len(set(said)) == 3
    assert all(re.fullmatch(r"mcp__n{50}_[0-9a-f]{8}", name) for name in said)
    assert {len(name) for name in said} == {MAX_NAME}
    assert [names.meant(name)[1] for name in said] == ["tool_0", "tool_1", "tool_2"]
    assert said == [again.of(tool.namespace, tool.name) for tool in tools]


def test_no_two_tools_have_one_name() -> None:
    """A plain tool keeps its name wherever it stands; of two namespaces the first one does."""
    tools = [
        FunctionTool(namespace="a", name="b__c"),
        FunctionTool(namespace="a__b", name="c"),
        FunctionTool(namespace="x", name="y"),
        FunctionTool(name="x__y"),
    ]
    request = request_of(*tools)
    names = Names(request)
    said = offered(render(request))
    assert (said[0], said[3]) == ("a__b__c", "x__y")
    assert re.fullmatch(r"a__b__c_[0-9a-f]{8}", said[1])
    assert re.fullmatch(r"x__y_[0-9a-f]{8}", said[2])
    assert [names.meant(name) for name in said] == [(t.namespace, t.name) for t in tools]
    taken = request_of(*tools, FunctionTool(name=said[1]))
    assert Names(taken).of("a__b", "c") not in {said[1], "a__b__c"}


# Requests.


def test_namespaces_are_flattened() -> None:
    """Functions of their own, in their order; what the namespace is for stands before the first."""
    inner = [
        {"type": "function", "name": "get", "description": "Gets.", "parameters": {}},
        {"type": "custom", "name": "put"},
    ]
    rendered = render(
        parsed(
            {"type": "function", "name": "get"},
            namespace("mcp__a", description="Files.", tools=inner),
            namespace("mcp__b", "get", "put"),
        )
    )
    assert offered(rendered) == ["get", "mcp__a__get", "mcp__a__put", "mcp__b__get", "mcp__b__put"]
    assert rendered.dropped == []
    functions = [tool["function"] for tool in rendered.body["tools"]]
    assert functions[0] == {"name": "get"}
    assert functions[1]["description"] == "The tools of mcp__a: Files.\n\nGets."
    assert "Files" not in functions[2]["description"]
    assert functions[2]["parameters"]["required"] == ["input"]
    assert functions[3] == {"name": "mcp__b__get"}


def test_what_a_namespace_has_beside_tools_of_ours_is_dropped_by_name() -> None:
    """A hosted tool inside, an empty namespace, and members that chat has not are listed."""
    inner = [
        {"type": "mcp", "server_label": "x"},
        {"type": "function", "name": "get", "defer_loading": True},
    ]
    rendered = render(parsed(namespace("a", tools=inner), namespace("b")))
    assert offered(rendered) == ["a__get"]
    assert sorted(rendered.dropped) == [
        "tools[0].tools[0] (mcp)",
        "tools[0].tools[1].defer_loading",
        "tools[1] (namespace)",
    ]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "namespace", "tools": [{"type": "function", "name": "f"}]}], "tools[0].name"),
        ([namespace("a", tools=[{"name": "f"}])], "tools[0].tools[0].type"),
        ([namespace("a", tools=[{"type": "function"}])], "tools[0].tools[0].name"),
        ([namespace("a", tools=["f"])], "tools[0].tools[0]"),
        ([namespace("a", tools="f")], "tools[0].tools"),
        ([namespace("a", "f", description=5)], "tools[0].description"),
    ],
)
def test_a_mistake_in_a_namespace_is_named(tools: list[Json], param: str) -> None:
    """The path leads to it."""
    with pytest.raises(BadRequest) as caught:
        parsed(*tools)
    assert caught.value.param == param


def test_a_function_and_a_custom_tool_of_one_name_in_one_namespace_are_refused() -> None:
    """As without a namespace; in two namespaces they are two tools."""
    twin = CustomTool(name="get", namespace="mcp__a")
    with pytest.raises(BadRequest) as caught:
        render(request_of(GET, twin))
    assert caught.value.param == "tools"
    other = CustomTool(name="get", namespace="mcp__b")
    assert offered(render(request_of(GET, other))) == ["mcp__a__get", "mcp__b__get"]


def test_old_calls_are_renamed_alike() -> None:
    """By the same names as the tools are offered by, also where a tool is offered no longer."""
    items = [
        ToolCall(call_id="1", name="get", arguments="{}", namespace="mcp__a"),
        ToolCall(call_id="2", name="put", arguments="x", namespace="mcp__a", custom=True),
        ToolCall(call_id="3", name="gone", arguments="{}", namespace="mcp__z"),
        ToolCall(call_id="4", name="get", arguments="{}"),
    ]
    [message] = render(request_of(GET, PUT, items=items)).body["messages"]
    assert [
        (call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]
    ] == [
        ("mcp__a__get", "{}"),
        ("mcp__a__put", '{"input":"x"}'),
        ("mcp__z__gone", "{}"),
        ("get", "{}"),
    ]


CHOOSABLE = [
    namespace("mcp__a", "get", "both", "twice"),
    namespace("mcp__b", "twice"),
    {"type": "function", "name": "plain"},
    {"type": "function", "name": "both"},
]

CHOICES: list[tuple[Json, str]] = [
    ({"name": "get", "namespace": "mcp__a"}, "mcp__a__get"),
    ({"name": "mcp__a__get"}, "mcp__a__get"),
    ({"name": "get"}, "mcp__a__get"),
    ({"name": "both"}, "both"),
    ({"name": "plain"}, "plain"),
    ({"name": "twice", "namespace": "mcp__b"}, "mcp__b__twice"),
]


@pytest.mark.parametrize(("choice", "name"), CHOICES, ids=[name for _, name in CHOICES])
def test_a_choice_finds_its_tool(choice: Json, name: str) -> None:
    """By both names, by the joined one, or by the name alone if only one tool has it."""
    request = parsed(*CHOOSABLE, tool_choice={"type": "function", **choice})
    chosen = {"type": "function", "function": {"name": name}}
    assert render(request).body["tool_choice"] == chosen


@pytest.mark.parametrize(
    "choice",
    [{"name": "twice"}, {"name": "gone"}, {"name": "get", "namespace": "mcp__b"}],
    ids=["in two namespaces", "in none", "in another one"],
)
def test_a_choice_that_is_not_one_tool_is_refused(choice: Json) -> None:
    """The upstream would be told to call what it was not offered."""
    request = parsed(*CHOOSABLE, tool_choice={"type": "function", **choice})
    with pytest.raises(BadRequest, match="not exactly one") as caught:
        render(request)
    assert caught.value.param == "tool_choice"


def test_a_plain_choice_is_the_upstreams_affair() -> None:
    """Without namespaces a name that was not offered is sent as it came."""
    plain = {"type": "function", "name": "plain"}
    request = parsed(plain, tool_choice={"type": "function", "name": "gone"})
    chosen = {"type": "function", "function": {"name": "gone"}}
    assert render(request).body["tool_choice"] == chosen


def test_some_tools_are_chosen() -> None:
    """A choice among some offers those, and what their namespace is for."""
    tools = [{"type": "function", "name": "get", "namespace": "mcp__a"}]
    request = parsed(
        namespace("mcp__a", "put", "get", description="Files."),
        namespace("mcp__b", "get"),
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": tools},
    )
    assert request.tool_choice == AllowedTools("required", [NamedTool("function", "get", "mcp__a")])
    rendered = render(request)
    assert rendered.body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "mcp__a__get",
                "description": "The tools of mcp__a: Files.",
            },
        }
    ]
    assert rendered.body["tool_choice"] == "required"


def test_a_program_s_namespaces_towards_responses() -> None:
    """Tools go back into their namespaces, where the first of each stands."""
    call = ToolCall(call_id="1", name="get", arguments="{}", namespace="mcp__a")
    custom = ToolCall(call_id="2", name="put", arguments="x", namespace="mcp__a", custom=True)
    request = request_of(
        GET,
        FunctionTool(name="plain"),
        PUT,
        FunctionTool(name="get", namespace="mcp__b"),
        items=[call, custom],
        namespaces={"mcp__a": "Files."},
        tool_choice=NamedTool("function", "get", "mcp__a"),
    )
    body = RESPONSES.render_request(request, Call(model="up", stream=False)).body
    check_responses_request(json.loads(json.dumps({**body, "tool_choice": "auto"})))
    assert [
        (tool["type"], tool["name"], [inner["name"] for inner in tool.get("tools", ())])
        for tool in body["tools"]
    ] == [
        ("namespace", "mcp__a", ["get", "put"]),
        ("function", "plain", []),
        ("namespace", "mcp__b", ["get"]),
    ]
    assert body["tools"][0]["description"] == "Files."
    assert body["tools"][2]["description"] == "Tools in the mcp__b namespace."
    assert body["tool_choice"] == {"type": "function", "namespace": "mcp__a", "name": "get"}
    assert [item["namespace"] for item in body["input"]] == ["mcp__a", "mcp__a"]


# Replies.


def called(name: str, *arguments: str) -> bytes:
    """A chat upstream's stream: one call."""
    start = {"index": 0, "id": "call_1", "function": {"name": name, "arguments": ""}}
    grown = [{"index": 0, "function": {"arguments": text}} for text in arguments]
    return stream(*({"tool_calls": [part]} for part in (start, *grown)), finish="tool_calls")


def events_of(data: bytes) -> list[Json]:
    lines = [line for line in data.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("custom", [False, True], ids=["function", "custom tool"])
def test_a_call_leaves_by_both_names(custom: bool) -> None:
    """From the item's first event on, with the wrapped input of a custom tool unwrapped."""
    tool = {"type": "custom" if custom else "function", "name": "get"}
    request = parsed(namespace("mcp__a", tools=[tool]), stream=True)
    data = called("mcp__a__get", '{"inp', 'ut":"x"}')
    batches = through(CHAT.decoder(request, DEFAULT_LIMITS), [data])
    events = events_of(stream_to("responses", request, batches))
    final = json.loads(whole_to("responses", request, batches))
    [added] = [event for event in events if event["type"] == "response.output_item.added"]
    [done] = [event for event in events if event["type"] == "response.output_item.done"]
    for item in (added["item"], done["item"], *events[-1]["response"]["output"], *final["output"]):
        assert item["type"] == ("custom_tool_call" if custom else "function_call")
        assert (item["namespace"], item["name"]) == ("mcp__a", "get")
    if custom:
        assert done["item"]["input"] == "x"
    else:
        assert done["item"]["arguments"] == '{"input":"x"}'
    assert final["tools"] == [namespace("mcp__a", tools=[tool])]


@pytest.mark.parametrize("name", ["mcp__a__nothing", "mcp__z__gone", "get"])
def test_a_name_that_was_not_offered_is_left_alone(name: str) -> None:
    """It is not guessed what the model may have meant: the client says that it knows no such."""
    gone = {
        "type": "function_call",
        "call_id": "1",
        "namespace": "mcp__z",
        "name": "gone",
        "arguments": "{}",
    }
    request = parsed(namespace("mcp__a", "get"), input=[gone])
    render(request)
    [start] = [
        event
        for batch in through(CHAT.decoder(request, DEFAULT_LIMITS), [called(name, "{}")])
        for event in batch
        if isinstance(event, ItemStarted)
    ]
    assert (start.namespace, start.name) == ("", name)


def test_a_responses_upstream_tells_a_program_the_namespace() -> None:
    """It stands in the event, whichever format the upstream speaks; null is none."""
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "get", "arguments": "{}"}
    output = [{**item, "namespace": "mcp__a"}, {**item, "id": "fc2", "namespace": None}]
    body = {"id": "resp_1", "status": "completed", "output": output}
    batches = through(
        RESPONSES.decoder(request_of(GET), DEFAULT_LIMITS), [json.dumps(body).encode()]
    )
    starts = [event for batch in batches for event in batch if isinstance(event, ItemStarted)]
    assert [(start.namespace, start.name) for start in starts] == [("mcp__a", "get"), ("", "get")]


def test_a_namespace_that_comes_late_is_kept() -> None:
    """A Responses upstream that tells it at the item's end only: the client gets it then."""
    request = parsed(namespace("mcp__a", "get"), stream=True)
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "get", "arguments": "{}"}
    late = {**item, "namespace": "mcp__a"}
    response = {"id": "resp_1", "status": "completed", "output": [late]}
    wire = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": late},
        {"type": "response.completed", "response": response},
    ]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in wire)
    batches = through(RESPONSES.decoder(request, DEFAULT_LIMITS), [data])
    last = events_of(stream_to("responses", request, batches))[-1]
    assert last["response"]["output"][0]["namespace"] == "mcp__a"
