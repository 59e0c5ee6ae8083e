"""What formats put into events beside text, in one shape, whatever an upstream wrote.

The law of this file: encoders trust events, so what is not of the right shape does not become
part of one. Log probabilities and citations are all that needs checking: everything else in an
event is a string, a number of ours, or an extra, which only its own format reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


MAX_ALTERNATIVES = 20
"""Alternatives per token that OpenAI's APIs can be asked for (`top_logprobs`)."""


def read_logprobs(value: Any) -> list[dict[str, Any]] | None:
    """Read a list of log probabilities; leave out entries that are none; None if nothing is left.

    Each entry has `token` (str), `logprob` (number), `bytes` (list of ints, or None) and
    `top_logprobs` (a list of such entries without alternatives of their own). Other members stay.
    """
    if not isinstance(value, list):
        return None
    entries = [_entry(entry, top=True) for entry in value if _is_entry(entry)]
    return entries or None


def read_citation(value: Any) -> dict[str, Any] | None:
    """Read a citation in the flat form of the Responses API; None if it is none.

    A `url_citation` has `url` and `title` (str), `start_index` and `end_index` (int), each made
    empty or 0 if missing. A citation of another type only has to name its type.
    """
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    if value["type"] != "url_citation":
        return value
    citation = dict(value)
    for name in ("url", "title"):
        if not isinstance(citation.get(name), str):
            citation[name] = ""
    for name in ("start_index", "end_index"):
        if not _is_index(citation.get(name)):
            citation[name] = 0
    return citation


def read_citations(value: Any) -> list[dict[str, Any]] | None:
    """Read a list of citations; leave out what is none; None if it is no list."""
    if not isinstance(value, list):
        return None
    return [citation for one in value if (citation := read_citation(one)) is not None]


def uncounted(usage: dict[str, Any], known: Mapping[str, str | None]) -> dict[str, Any]:
    """What a usage object says beyond the normal form.

    `known` names its members that are counts there, and the one count inside those that are not.
    """
    rest: dict[str, Any] = {}
    for name, value in usage.items():
        if name not in known:
            rest[name] = value
        elif known[name] is not None and isinstance(value, dict):
            rest[name] = {key: value[key] for key in value if key != known[name]}
    return {name: value for name, value in rest.items() if value not in (None, {})}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("token"), str)
        and isinstance(entry.get("logprob"), int | float)
        and not isinstance(entry["logprob"], bool)
    )


def _entry(entry: dict[str, Any], *, top: bool) -> dict[str, Any]:
    made = dict(entry)
    raw = made.get("bytes")
    made["bytes"] = raw if isinstance(raw, list) and all(_is_index(one) for one in raw) else None
    if not top:
        made.pop("top_logprobs", None)
        return made
    others = made.get("top_logprobs")
    made["top_logprobs"] = (
        [_entry(one, top=False) for one in others[:MAX_ALTERNATIVES] if _is_entry(one)]
        if isinstance(others, list)
        else []
    )
    return made


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
