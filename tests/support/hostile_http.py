"""Hostile HTTP: what is sent to the gateway's port, and the one answer that it must have.

Each entry: bytes, and the status of the answer; 0 = the connection ends without a word.
"""

from __future__ import annotations

from .gateway import post
from .siege import chat


CLOSE = b"Connection: close\r\n"
HEAD = b"Host: localhost\r\n"
CHAT_PATH = b"/v1/chat/completions"
WS = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BODY = chat().partition(b"\r\n\r\n")[2]


def get(
    target: bytes = b"/livez",
    head: bytes = b"",
    version: bytes = b"HTTP/1.1",
    *,
    close: bool = True,
) -> bytes:
    """A request without a body, the last of its connection if `close`."""
    head = HEAD + head + CLOSE * close
    return b"GET " + target + b" " + version + b"\r\n" + head + b"\r\n"


def send(head: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    """A request for a stream, with these headers and exactly this body."""
    return method + b" " + CHAT_PATH + b" HTTP/1.1\r\n" + HEAD + head + b"\r\n" + body


def chunked(body: bytes, head: bytes = b"") -> bytes:
    return send(b"Transfer-Encoding: chunked\r\n" + head, body)


def length(value: bytes, body: bytes = BODY) -> bytes:
    return send(b"Content-Length: " + value + b"\r\n" + CLOSE, body)


CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
"""A chunked body, but for its trailers."""

OTHER_PROTOCOLS: dict[str, tuple[bytes, int]] = {
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 40, 505),
    "http/3.0": (get(b"/", version=b"HTTP/3.0"), 505),
    "http/1.2": (get(version=b"HTTP/1.2"), 505),
    "http/0.9": (b"GET /livez\r\n\r\n", 400),
    "http/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    "http/11": (get(version=b"HTTP/11"), 400),
    "http/1.10": (get(version=b"HTTP/1.10"), 400),
    "version in small letters": (get(version=b"http/1.1"), 400),
    "version of spaces": (get(version=b"   "), 400),
    "tls to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32, 400),
    "tls alert": (b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", 400),
    "ssh": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", 400),
    "smtp": (b"EHLO localhost\r\n\r\n", 400),
    "redis": (b"*1\r\n$4\r\nPING\r\n\r\n", 400),
    "socks": (b"\x05\x01\x00\r\n\r\n", 400),
    "rtsp": (b"OPTIONS rtsp://localhost/livez RTSP/1.0\r\n" + HEAD + b"\r\n", 400),
    "proxy protocol": (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(), 400),
    "proxy protocol 2": (b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c" + b"\x7f" * 12 + get(), 400),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
    "nothing but newlines": (b"\r\n\r\n\r\n", 400),
    "nul bytes": (b"\x00" * 100 + b"\r\n\r\n", 400),
    "every byte": (bytes(range(256)) + b"\r\n\r\n", 400),
    "stray byte after an upgrade (hypercorn#225)": (WS + b"\x00", 426),
    "frames after an upgrade": (WS + b"\x81\x85\x00\x00\x00\x00hello" * 50, 426),
    "upgrade in odd letters": (WS.replace(b"websocket", b"WebSocket"), 426),
    "websocket of another version": (WS.replace(b"Version: 13", b"Version: 99"), 426),
    "websocket without a key": (WS.replace(b"Sec-WebSocket-Key", b"X"), 426),
    "websocket by POST": (WS.replace(b"GET", b"POST"), 426),
    "deflate offered": (
        WS.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), 426),
    "h2c with bad base64": (
        get(head=b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: a\r\n"),
        200),
    "h2c with good settings": (
        get(head=b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), 200),
    "h2c with two settings": (
        get(head=b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            + b"HTTP2-Settings: \xff\xff\r\n" * 2), 200),
    "upgrade to tls": (get(head=b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"), 200),
    "upgrade to nothing": (get(head=b"Upgrade: \r\nConnection: Upgrade\r\n"), 200),
}  # fmt: skip

REQUEST_LINES: dict[str, tuple[bytes, int]] = {
    "an empty line first": (b"\r\n" + get(), 200),
    "two empty lines first": (b"\r\n\r\n" + get(), 200),
    "three empty lines first": (b"\r\n" * 3 + get(), 400),
    "a space first": (b" " + get(), 400),
    "two spaces": (get(b" /livez"), 400),
    "a tab for a space": (get().replace(b"GET ", b"GET\t"), 400),
    "no target": (b"GET HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
    "four words": (get(b"/livez HTTP/1.1"), 400),
    "line feeds only": (get().replace(b"\r\n", b"\n"), 200),
    "carriage returns only": (get().replace(b"\r\n", b"\r") + b"\r\n\r\n", 400),
    "nul in the target": (get(b"/livez\x00"), 400),
    "control character in the target": (get(b"/livez\x1b[31m"), 400),
    "non-ascii target": (get("/é".encode()), 400),
    "percent and nul in the path": (get(b"/%00%ff%0a"), 404),
    "header injection by the path": (get(b"/%0d%0aSet-Cookie:%20a=b"), 404),
    "bad percent": (get(b"/%zz%"), 404),
    "encoded slash": (get(b"/v1%2fmodels"), 200),
    "encoded letters": (get(b"/%6civez"), 200),
    "dots": (get(b"/../../etc/passwd"), 404),
    "encoded dots": (get(b"/v1/models/%2e%2e/%2e%2e/etc/passwd"), 404),
    "backslashes": (get(b"/..\\..\\livez"), 404),
    "two slashes": (get(b"//evil.example/livez"), 404),
    "fragment": (get(b"/livez#a"), 404),
    "query of everything": (get(b"/livez?" + bytes(range(33, 127))), 200),
    "query of percents": (get(b"/livez?" + b"%00=%ff&" * 1000), 200),
    "many parameters": (get(b"/livez?" + b"a&" * 5000), 200),
    "long target": (get(b"/" + b"a" * 20000), 431),
    "long target that never ends": (b"GET /" + b"a" * 70000, 431),
    "target without slash": (get(b"?a=b"), 404),
    "absolute target": (get(b"http://localhost/livez"), 200),
    "absolute target of a stranger": (get(b"http://169.254.169.254/latest/meta-data"), 404),
    "absolute target with a user": (get(b"http://a:b@localhost/livez"), 200),
    "absolute target, no path": (get(b"HTTP://localhost"), 404),
    "absolute target of another scheme": (get(b"ftp://localhost/livez"), 404),
    "broken absolute target": (get(b"http://[::1"), 404),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
    "connect": (b"CONNECT localhost:1 HTTP/1.1\r\n" + HEAD + b"\r\nabc", 404),
    "trace": (b"TRACE /livez HTTP/1.1\r\n" + HEAD + b"\r\n", 405),
    "odd method": (b"B!$ /livez HTTP/1.1\r\n" + HEAD + b"\r\n", 405),
    "method in small letters": (b"get /livez HTTP/1.1\r\n" + HEAD + CLOSE + b"\r\n", 200),
    "method of 10,000 letters": (b"A" * 10_000 + b" /livez HTTP/1.1\r\n" + HEAD + b"\r\n", 405),
    "method with a slash": (b"GE/T /livez HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
    "delete a model": (b"DELETE /v1/models/good HTTP/1.1\r\n" + HEAD + b"\r\n", 405),
    "put": (send(CLOSE, method=b"PUT"), 405),
    "patch": (send(CLOSE, method=b"PATCH"), 405),
}

HEADERS: dict[str, tuple[bytes, int]] = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (get(b"/", HEAD), 400),
    "empty host": (b"GET /livez HTTP/1.1\r\nHost:\r\n" + CLOSE + b"\r\n", 200),
    "host of a stranger": (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    "host with a user": (b"GET /livez HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", 403),
    "host with a path": (b"GET /livez HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 403),
    "host of two": (b"GET /livez HTTP/1.1\r\nHost: localhost, evil.example\r\n\r\n", 403),
    "host not ascii": ("GET /livez HTTP/1.1\r\nHost: löcalhost\r\n\r\n".encode(), 403),
    "forwarded host": (get(head=b"X-Forwarded-Host: evil.example\r\nForwarded: for=x\r\n"), 200),
    "origin of a stranger": (get(head=b"Origin: http://evil.example\r\n"), 403),
    "origin null": (get(head=b"Origin: null\r\n"), 403),
    "two origins": (get(head=b"Origin: http://localhost\r\nOrigin: http://evil.example\r\n"), 403),
    "origins turned": (get(head=b"Origin: http://e.example\r\nOrigin: http://localhost\r\n"), 403),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "no colon": (get(head=b"Nonsense\r\n"), 400),
    "no name": (get(head=b": x\r\n"), 400),
    "nul in a name": (get(head=b"X\x00Y: a\r\n"), 400),
    "non-ascii name": (get(head="Ä: a\r\n".encode()), 400),
    "bare CR in a value": (get(head=b"X: a\rb\r\n"), 400),
    "nul in a value": (get(head=b"X: a\x00b\r\n"), 400),
    "escape in a value": (get(head=b"X: \x1b[2J\r\n"), 200),
    "non-ascii value": (get(head=b"X: \xff\xfe\r\n"), 200),
    "folded header": (get(head=b"X: a\r\n b\r\n"), 200),
    "folded first line": (b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "folded length": (send(b"Content-Length:\r\n " + b"%d\r\n" % len(BODY) + CLOSE, BODY), 200),
    "long header": (get(b"/", b"X: " + b"a" * 20000 + b"\r\n"), 431),
    "long name": (get(b"/", b"X" * 20000 + b": a\r\n"), 431),
    "many headers": (get(b"/", b"X: a\r\n" * 1200), 431),
    "headers that never end": (get(close=False)[:-2] + b"X: a\r\n" * 20_000, 431),
    "cookies": (get(head=b"Cookie: a=b; a; =; \x7f\r\n" * 20), 200),
    "two content types": (post({"model": 1}, head=b"Content-Type: a/b\r\n" + CLOSE), 415),
    "connection names the length": (
        post({}, head=b"Connection: close, Content-Length\r\n"), 400),
    "keep-alive and close": (get(head=b"Connection: keep-alive, close\r\n", close=False), 200),
    "keep-alive for ever": (get(head=b"Keep-Alive: timeout=-1, max=99999\r\n"), 200),
    "range": (get(head=b"Range: bytes=0-0,-1\r\n"), 200),
    "if-none-match": (get(head=b'If-None-Match: *\r\nIf-Match: "x"\r\n'), 200),
    "authorization of nonsense": (chat(head=b"Authorization: \xff Bearer\r\n" + CLOSE), 200),
    "an id with a stranger's header": (get(head=b"X-Request-Id: a%0d%0ab\r\n"), 200),
    "expect something else": (chat(head=b"Expect: 200-ok\r\n" + CLOSE), 200),
    "expect by 1.0": (
        chat(head=b"Expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "expect without a body": (get(head=b"Expect: 100-continue\r\n"), 200),
    "preflight of nonsense": (
        b"OPTIONS /v1/models HTTP/1.1\r\n" + HEAD + b"Access-Control-Request-Method: \xff\r\n\r\n",
        204),
}  # fmt: skip

BODIES: dict[str, tuple[bytes, int]] = {
    "length and chunked": (
        send(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked and length": (
        chunked(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", b"Content-Length: 0\r\n"), 400),
    "two lengths": (send(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"ab"), 400),
    "one length twice": (
        send(b"Content-Length: %d\r\n" % len(BODY) * 2 + CLOSE, BODY), 200),
    "list of lengths": (length(b"%d, %d" % (len(BODY), len(BODY) + 1)), 400),
    "no length": (send(CLOSE, BODY), 400),
    "empty length": (length(b""), 400),
    "negative length": (length(b"-1"), 400),
    "length with a plus": (length(b"+%d" % len(BODY)), 400),
    "length in hex": (length(b"0x10"), 400),
    "length with an underscore": (length(b"1_0"), 400),
    "length with a point": (length(b"1.0"), 400),
    "length in arabic digits": (length("٤٢".encode()), 400),
    "huge length": (length(b"99999999999999999999", b""), 413),
    "length of 5,000 digits": (length(b"9" * 5000, b""), 400),
    "length too small": (length(b"%d" % (len(BODY) - 1)), 400),
    "length too large": (length(b"%d" % (len(BODY) + 1)), 408),
    "unknown coding": (send(b"Transfer-Encoding: gzip, chunked\r\n"), 501),
    "identity coding": (send(b"Transfer-Encoding: identity\r\n"), 501),
    "chunked twice": (send(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"), 501),
    "chunked in a list twice": (send(b"Transfer-Encoding: chunked, chunked\r\n"), 501),
    "chunked with a vertical tab": (send(b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "chunked in odd letters": (
        send(b"Transfer-Encoding: cHuNkEd\r\n" + CLOSE, CHUNKS + b"\r\n"), 200),
    "chunked by 1.0": (
        chunked(CHUNKS + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "bad chunk": (chunked(b"zz\r\n"), 400),
    "negative chunk": (chunked(b"-1\r\nx\r\n"), 400),
    "chunk with 0x": (chunked(b"0x1\r\nx\r\n"), 400),
    "chunk with an underscore": (chunked(b"1_0\r\n0123456789abcdef\r\n"), 400),
    "huge chunk": (chunked(b"ffffffffffffffff\r\n"), 408),
    "chunk of 21 digits": (chunked(b"0" * 20 + b"1\r\n"), 400),
    "chunk with a space": (chunked(b"2 \r\n{}\r\n0\r\n\r\n", CLOSE), 400),
    "chunk with an extension": (
        chunked(CHUNKS.replace(b"\r\n", b";a=b\r\n", 1) + b"\r\n", CLOSE), 200),
    "chunk with an endless extension": (chunked(b"1;" + b"a" * 100_000), 431),
    "chunk with a lenient end": (chunked(b"2\r\n{}XX0\r\n\r\n"), 400),
    "chunks by line feeds": (chunked(CHUNKS.replace(b"\r\n", b"\n") + b"\n"), 408),
    "chunks of one byte": (
        chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", CLOSE), 200),
    "chunks that stop": (chunked(CHUNKS[:-10]), 408),
    "trailers": (chunked(CHUNKS + b"X: a\r\n\r\n", CLOSE), 200),
    "trailers that change the length": (
        chunked(CHUNKS + b"Content-Length: 5\r\nHost: evil.example\r\n\r\n", CLOSE), 200),
    "trailers of nonsense": (chunked(CHUNKS + b"no colon\r\n\r\n", CLOSE), 400),
    "trailers that never end": (chunked(CHUNKS + b"X: a\r\n" * 10_000), 431),
    "body of GET": (get(head=b"Content-Length: 5\r\n") + b"hello", 200),
    "chunked body of GET": (
        get(head=b"Transfer-Encoding: chunked\r\n") + b"1\r\nx\r\n0\r\n\r\n", 200),
    "body of GET that does not come": (get(head=b"Content-Length: 5\r\n"), 200),
    "body of HEAD": (
        b"HEAD /livez HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n" + CLOSE + b"\r\n{}", 200),
    "a request as the body": (length(b"%d" % len(get()), get()), 400),
}  # fmt: skip

HTTP = {
    "other protocols": OTHER_PROTOCOLS,
    "request lines": REQUEST_LINES,
    "headers": HEADERS,
    "bodies": BODIES,
}
