"""Hostile bodies: what is sent as JSON, to which path, and the status that it must get.

Sound requests with hostile words in them are here too: they are carried, or refused by name.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from .gateway import post


CHAT = b"/v1/chat/completions"
RESPONSES = b"/v1/responses"
PLAIN: dict[str, Any] = {
    "model": "good", "stream": True, "messages": [{"role": "user", "content": "hi"}]
}  # fmt: skip
TEXT = json.dumps(PLAIN)


def raw(body: bytes, path: bytes = CHAT, kind: bytes = b"application/json") -> bytes:
    """A request with exactly this body."""
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %b\r\n"
        b"Content-Length: %d\r\n\r\n%b"
    ) % (path, kind, len(body), body)


def chat(**fields: Any) -> bytes:
    """A chat request with these fields beside, or instead of, the ordinary ones."""
    return post({**PLAIN, **fields}, head=b"Connection: close\r\n")


def coded(body: bytes, coding: bytes) -> bytes:
    return raw(body).replace(b"\r\n\r\n", b"\r\nContent-Encoding: " + coding + b"\r\n\r\n", 1)


def tool(name: Any, **fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {}, **fields}}]


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"a": value}
    return value


_NO_JSON: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b" " * 1000,
    "a nul": b"\x00",
    "cut": b'{"model":"good","messages":[',
    "two objects": b"{}{}",
    "junk behind": TEXT.encode() + b"x",
    "a list": b"[1]",
    "a string": b'"hi"',
    "a number": b"1e5",
    "null": b"null",
    "single quotes": b"{'model':'good'}",
    "a comment": b'{"model":"good"/**/}',
    "a trailing comma": b'{"model":"good",}',
    "no quotes": b"{model:1}",
    "a form": b"model=good&stream=1",
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    "msgpack": b"\x81\xa5model\xa4good",
    "key twice": b'{"model":"good","model":"stalls"}',
    "key twice, once escaped": b'{"model":"good","\\u006dodel":"stalls"}',
    "key twice inside": b'{"model":"good","messages":[{"role":"user","role":"system"}]}',
    "NaN": b'{"model":"good","temperature":NaN}',
    "infinity": b'{"model":"good","temperature":-Infinity}',
    "a float out of range": b'{"model":"good","temperature":1e999}',
    "an integer of 100,000 digits": b'{"model":"good","max_tokens":' + b"9" * 100_000 + b"}",
    "lists 100,000 deep": b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists that never close": b"[" * 500_000,
    "65 deep": b'{"model":' + b"[" * 65 + b"]" * 65 + b"}",
    "9,000 lists deep, within every count": b'{"model":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
    "many empty lists": b'{"model":[' + b"[]," * 100_000 + b"[]]}",
    "many keys": b"{" + b",".join(b'"%d":0' % number for number in range(20_000)) + b"}",
    "one long escaped string that never ends": b'{"model":"' + b'\\"' * 100_000,
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 without a mark": TEXT.encode("utf-16-le"),
    "utf-32": TEXT.encode("utf-32"),
    "latin-1": b'{"model":"\xe9"}',
    "overlong utf-8": b'{"model":"\xc0\xaf"}',
    "a surrogate in utf-8": b'{"model":"\xed\xa0\xbd"}',
    "cut utf-8": b'{"model":"\xf0\x9f"}',
    "a raw newline in a string": b'{"model":"a\nb"}',
    "a bad escape": b'{"model":"\\x41"}',
    "half an escape": b'{"model":"\\u12"}',
}
"""Bodies that are refused whatever the format."""

_WORDS: dict[str, tuple[bytes, int]] = {
    "content type of a form": (raw(b"a=b", kind=b"application/x-www-form-urlencoded"), 415),
    "content type of parts": (raw(TEXT.encode(), kind=b"multipart/form-data; boundary=x"), 415),
    "content type of text": (raw(TEXT.encode(), kind=b"text/plain"), 415),
    "content type of nonsense": (raw(TEXT.encode(), kind=b'application/json; charset="\\"'), 200),
    "content type with another charset": (
        raw(TEXT.encode(), kind=b"application/json; charset=utf-7"), 200),
    "content type of a kind": (raw(TEXT.encode(), kind=b"application/x+json"), 200),
    "no content type": (raw(TEXT.encode(), kind=b""), 200),
    "gzip": (coded(gzip.compress(TEXT.encode()), b"gzip"), 415),
    "a gzip bomb": (coded(gzip.compress(b" " * 50_000_000), b"gzip"), 415),
    "deflate": (coded(zlib.compress(TEXT.encode()), b"deflate"), 415),
    "codings": (coded(TEXT.encode(), b"identity, gzip"), 415),
    "gzip that is not said": (raw(gzip.compress(TEXT.encode())), 400),
    "a body over the limit": (raw(b" " * 1_100_000), 413),
    "a BOM": (raw(b"\xef\xbb\xbf" + TEXT.encode()), 200),
    "two BOMs": (raw(b"\xef\xbb\xbf" * 2 + TEXT.encode()), 400),
    "half a surrogate pair": (raw(TEXT.replace("hi", "\\ud83d").encode()), 200),
    "halves in the wrong order": (raw(TEXT.replace("hi", "\\udc00\\ud800").encode()), 200),
    "half a pair as a key": (raw(TEXT.replace('"hi"', '{"\\ud83d":1}').encode()), 400),
    "half a pair as the model": (raw(TEXT.replace("good", "\\ud83d").encode()), 404),
    "a nul in the text": (chat(messages=[{"role": "user", "content": "\x00"}]), 200),
    "separators of lines": (chat(messages=[{"role": "user", "content": "\u2028\u0085\x1e"}]), 200),
    "a frame in the text": (
        chat(messages=[{"role": "user", "content": "\n\ndata: [DONE]\n\n"}]), 200),
    "a long text": (chat(messages=[{"role": "user", "content": "x" * 900_000}]), 200),
    "prose of brackets": (chat(messages=[{"role": "user", "content": "[{," * 200_000}]), 200),
    "model of header lines": (chat(model="a\r\nSet-Cookie: b=c\r\n\r\nHTTP/1.0 200 OK"), 404),
    "model of frames": (chat(model="a\n\nevent: x\ndata: y\n\n"), 404),
    "model of colours": (chat(model="\x1b[31m\x07\u202egood"), 404),
    "model of 900,000 letters": (chat(model="m" * 900_000), 404),
    "model of a path": (chat(model="../../v1/models"), 404),
    "model of an address": (chat(model="http://169.254.169.254/"), 404),
    "model of percents": (chat(model="%s%n%(x)s{0}{x!r}"), 404),
    "model is empty": (chat(model=""), 400),
    "model is null": (chat(model=None), 400),
    "model is a list": (chat(model=["good"]), 400),
    "model is a number": (chat(model=1.5), 400),
    "model of the class": (chat(model="__class__"), 404),
    "tool of header lines": (chat(tools=tool("a\r\nX: b")), 200),
    "tool of frames": (chat(tools=tool("a\n\ndata: [DONE]\n\n")), 200),
    "tool without a name": (chat(tools=tool("")), 200),
    "tool is null": (chat(tools=tool(None)), 400),
    "tools are one": (chat(tools=tool("a")[0]), 400),
    "tools of numbers": (chat(tools=[1, 2]), 400),
    "a deep schema": (chat(tools=tool("a", parameters=nested(55))), 200),
    "too deep a schema": (chat(tools=tool("a", parameters=nested(65))), 400),
    "a schema of itself": (chat(tools=tool("a", parameters={"$ref": "#"})), 200),
    "messages are null": (chat(messages=None), 400),
    "messages are a word": (chat(messages="hi"), 400),
    "messages are an object": (chat(messages={"role": "user"}), 400),
    "messages of lists": (chat(messages=[[[]]]), 400),
    "a role of nonsense": (chat(messages=[{"role": "r\u0000ot", "content": ""}]), 400),
    "content is a number": (chat(messages=[{"role": "user", "content": 1}]), 400),
    "content of odd parts": (chat(messages=[{"role": "user", "content": [{"type": []}]}]), 400),
    "a call that answers nothing": (
        chat(messages=[{"role": "tool", "tool_call_id": "x", "content": "y"}]), 200),
    "stream is a word": (chat(stream="yes"), 400),
    "stream options of nonsense": (chat(stream_options=[1]), 400),
    "n is huge": (chat(n=10**18), 200),
    "n is negative": (chat(n=-1), 400),
    "max_tokens is huge": (
        raw(TEXT.replace("{", '{"max_tokens":1' + "0" * 30 + ",", 1).encode()), 200),
    "temperature is a word": (chat(temperature="hot"), 400),
    "stop of 9,000": (chat(stop=["x"] * 9000), 200),
    "stop of numbers": (chat(stop=[1]), 400),
    "a field of the class": (chat(__class__={"a": 1}), 200),
    "a field of a prototype": (chat(__proto__={"stream": False}), 200),
}  # fmt: skip

JSON = {
    **{
        f"no {path.decode()}": {name: (raw(body, path), 400) for name, body in _NO_JSON.items()}
        for path in (CHAT, RESPONSES)
    },
    "words": _WORDS,
}
