"""What single values of the configuration must be.

The law of this file: each function looks at one thing and returns what is wrong with it, in words
for the file's author, or `None`. It knows neither the file nor the line: `config.py` does.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .toml_lines import Path as Keys


OURS = frozenset({"host", "content-length", "transfer-encoding", "accept-encoding"})
"""Headers of a request to an upstream that the configuration does not say."""

_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret", re.IGNORECASE)


def url(text: str) -> str | None:
    """Check a `base_url`."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return "base_url is like https://host/v1"
    if not good:
        return "base_url is like https://host/v1"
    if "@" in parts.netloc:
        return "credentials do not belong in base_url: use api_key or headers"
    return None


def proxy(text: str) -> str | None:
    """Check the URL of a proxy. What is wrong is said without it: it may hold a password."""
    try:
        parts = urlsplit(text)
        good = parts.hostname and parts.port != 0 and text.isascii() and text.isprintable()
    except ValueError:
        good = None
        parts = urlsplit("")
    if parts.scheme in {"socks4", "socks4a", "socks5", "socks5h"}:
        return f"a {parts.scheme} proxy is not supported: one that speaks HTTP is"
    if not good or parts.scheme not in {"http", "https"}:
        return "proxy is like http://host:3128, or http://user:password@host:3128"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return "proxy has nothing behind its host and port"
    return None


def header_name(name: str) -> str | None:
    """Check the name of a header that goes to an upstream."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        return f"{name!r} is not the name of a header"
    if name.lower() in OURS:
        return f"the header {name} is not configurable"
    return None


def header_value(text: str, *, ascii_only: bool = True) -> str | None:
    """Check what a header must carry; what is not ASCII goes as UTF-8, where that is allowed."""
    if (ascii_only and not text.isascii()) or not text.isprintable() or text != text.strip():
        return "the value has characters that no header can carry"
    return None


def readable(file: str) -> str | None:
    """Check that we may read a file."""
    try:
        with Path(file).open("rb"):
            return None
    except OSError as error:
        return f"{file}: {error.strerror or error}"


def certificate(cert: str, key: str) -> str | None:
    """Check that two files are a certificate and its key. Never asks for a password."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            cert, key, password=lambda: b""
        )
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no password is asked for"
        return f"{cert} and {key} are no certificate and its key: {reason}"
    return None


def shown_secret(tables: Mapping[str, Any]) -> Keys | None:
    """Find the first secret that stands in the file itself, not in a `${NAME}`."""
    for keys, value in _secrets(tables):
        if isinstance(value, str) and value and "${" not in value.replace("$${", ""):
            return keys
    return None


def mode_for_others(file: Path) -> int | None:
    """Return the mode of a file that other users may use; `None` where there are none."""
    mode = file.stat().st_mode & 0o777
    return mode if mode & 0o077 and os.name == "posix" else None


def _secrets(tables: Mapping[str, Any]) -> Iterator[tuple[Keys, Any]]:
    for index, key in enumerate(tables.get("keys", ())):
        yield ("keys", index, "secret"), key.get("secret")
    for name, provider in tables.get("providers", {}).items():
        yield ("providers", name, "api_key"), provider.get("api_key")
        if "@" in str(provider.get("proxy")):
            yield ("providers", name, "proxy"), provider["proxy"]
        for header, value in provider.get("headers", {}).items():
            if _SECRET_HEADER.search(header):
                yield ("providers", name, "headers", header), value
    for index, model in enumerate(tables.get("models", ())):
        yield ("models", index, "api_key"), model.get("api_key")
