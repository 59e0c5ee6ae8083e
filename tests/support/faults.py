"""The fault matrix: what may go wrong, what must happen then, and which tests prove it.

    @pytest.mark.fault(13, "S")     # this test proves row 13, in virtual time

The law of this file: a row counts as proved only by tests that say so themselves, one at least of
each kind that the row demands; `test_fault_matrix.py` holds this. Marks are read off the syntax
trees, so what counts does not depend on which tests a run has selected.

    uv run python tests/support/faults.py     # every row with the tests that prove it
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


TESTS = Path(__file__).parent.parent

KINDS = {
    "V": "pure, no clock and no I/O",
    "S": "simulated: virtual time, memory streams",
    "R": "real sockets",
}


class Row(NamedTuple):
    """One fault."""

    number: int
    fault: str
    must: str
    """What must happen."""
    kinds: str
    """The kinds of test it demands, by their letters in `KINDS`."""
    note: str = ""
    """Where the blueprint's rule is another one, or the row's words need a reading."""


ROWS = [
    Row(1, "upstream refuses, or its name is unknown",
        "502 in the client's format within the connect clock; counted", "S",
        "counted in nursling_stream_ends; a circuit breaker is not part of this"),
    Row(2, "connect hangs", "504 at 10 s; slot freed", "S"),
    Row(3, "TLS failure", "502; the certificate's reason in the log, not in the reply", "R"),
    Row(4, "upstream says 401, 403, 404", "mapped error body; our key never echoed", "V"),
    Row(5, "upstream says 429 or 529 with Retry-After", "passed on with Retry-After", "VS"),
    Row(6, "5xx, an HTML error page, an empty body",
        "valid error in the client's format, the page not in it; 4 KiB at most are kept", "V",
        "not quoted in the log either: error pages quote prompts, and no log has a word of one"),
    Row(7, "200, but application/json and not SSE, or the reverse",
        "the whole body is translated, or 502 upstream_protocol_error", "V"),
    Row(8, "the answer's head never comes", "the first-event clock, 120 s: 504", "S",
        "a streaming client was committed at the first heartbeat: it gets the error in its stream"),
    Row(9, "client leaves before the first token",
        "upstream closed in the same tick, slot back, recorded as client_gone", "S"),
    Row(10, "stall in mid-stream",
        "at 120 s of silence an error event ends the stream, upstream closed", "S",
        "a stream that broke has no good terminator: chat gets no [DONE]"),
    Row(11, "a healthy stream of 30 minutes", "not cut", "S"),
    Row(12, "drip: one byte each 119 s", "the idle clock counts news, not bytes; total if set",
        "S"),
    Row(13, "RST in mid-frame", "events so far are delivered, then an error; no false stop", "SR"),
    Row(14, "FIN without a terminator", "a failed reply, unless every finish was seen", "VS"),
    Row(15, "RST right behind the last byte, the tail lost", "as 13; counted", "R"),
    Row(16, "data behind the terminator", "ignored; the reply is counted once", "V"),
    Row(17, "client stops reading",
        "the upstream is paused; at the write clock the link is cut; the server can stop", "SR"),
    Row(18, "client half-closes", "counts as gone; documented", "R"),
    Row(19, "client pipelines junk, then leaves", "freed at the next write or idle clock", "S"),
    Row(20, "slow head, slow body",
        "head 5 s; body 30 s without a byte, or too few in all; others unaffected", "S"),
    Row(21, "10,000 connections", "a cap, 503 fast beyond it, descriptors bounded", "R"),
    Row(22, "SSE: every line end, cut anywhere, BOM, comments, data without colon or in lines",
        "the events of the WHATWG standard", "V"),
    Row(23, "UTF-8 cut by chunks, invalid UTF-8, lone surrogates in JSON",
        "replaced once; the encoder never raises", "V"),
    Row(24, "U+2028 and U+0085 inside data", "no line end", "V"),
    Row(25, "one frame over 1 MiB, or no newline ever",
        "a named error at the budget; memory bounded", "V"),
    Row(26, "a million tiny events", "linear time, flat memory", "V"),
    Row(27, "invalid JSON in a frame", "a failed reply that says what was wrong, and where", "V"),
    Row(28, "JSON bombs: depth, huge integers, NaN, doubled keys", "refused, never a crash", "V"),
    Row(29, "unknown event type or field", "carried, or dropped by rule; never a crash", "V"),
    Row(30, "events out of order", "repaired or refused by the table, for all formats alike", "V"),
    Row(31, "tool call arguments invalid, partial, interleaved",
        "assembled by index; invalid JSON passes as text", "V"),
    Row(32, "empty deltas, null content, no usage, id or created", "valid in every format", "V"),
    Row(33, "gzip although identity was asked; a gzip bomb", "refused, never inflated", "S"),
    Row(34, "redirect to elsewhere", "not followed", "S"),
    Row(35, "body over the limit, false Content-Length, both lengths, chunked trickle",
        "413 or 400, and closed; not parsed", "S"),
    Row(36, "newline in a header, a model's or a tool's name",
        "reaches no header and no `event:` line", "V"),
    Row(37, "a stage raises what nobody expected",
        "one request fails with 500 or an error event; the server lives; logged once", "S"),
    Row(38, "two stages fail at once", "one is told by the stated rule, the other its __context__",
        "S"),
    Row(39, "cancelled at every checkpoint of a request",
        "no slot, connection, task or byte left; usage recorded", "S"),
    Row(40, "SIGTERM with streams open",
        "no new work, /readyz 503, drain, then error events, exit 0", "SR"),
    Row(41, "second SIGTERM, stuck client", "exit within 5 s regardless", "R"),
    Row(43, "configuration wrong, key file unreadable, port busy",
        "refuses to start: one clear line, exit 2", "R"),
    Row(44, "the wall clock jumps", "nothing: only monotonic clocks decide", "V"),
    Row(45, "no descriptors left", "accepting waits, one line in the log; alive after", "R"),
    Row(46, "contention for connections, mass cancellation", "no connection without an owner",
        "SR"),
    Row(47, "stray byte behind an upgrade, bad h2c, HTTP/2 preface, non-ASCII target",
        "hurts that connection only", "R"),
    Row(57, "permessage-deflate offered", "not negotiated: 426", "R"),
    Row(59, "the embedder cancels, or its block raises",
        "its exception unchanged, no group, everything closed", "S"),
    Row(60, "the engine used twice, or at the wrong time",
        "independent; misuse is a LocalProtocolError", "V"),
]  # fmt: skip
"""The rows that concern what exists, by the numbers that issues call them. The missing numbers are
of the peer mesh and the console."""


class Proof(NamedTuple):
    """One mark of one test."""

    row: int
    kind: str
    test: str
    """As pytest names it: file, two colons, function."""
    breach: str = ""
    """Why it does not count."""


def proofs(folder: Path = TESTS) -> list[Proof]:
    """Every `fault` mark below a folder, in the order of the files."""
    return [proof for file in sorted(folder.rglob("*.py")) for proof in _proofs_in(file, folder)]


def proofs_by_row(folder: Path = TESTS) -> dict[int, list[Proof]]:
    """The marks that count, by row."""
    found: defaultdict[int, list[Proof]] = defaultdict(list)
    for proof in proofs(folder):
        if not proof.breach:
            found[proof.row].append(proof)
    return found


def _proofs_in(file: Path, folder: Path) -> Iterator[Proof]:
    source = file.read_text()
    if "mark.fault" not in source:
        return
    tree = ast.parse(source)
    place = file.relative_to(folder.parent).as_posix()
    outer = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            owner = _owner(tree, node)
            match [ast.literal_eval(word) for word in node.args], node.keywords:
                case [int(row), str(kind)], []:
                    name = owner.name if owner is not None else f"line {node.lineno}"
                    breach = _breach(file, owner, collected=owner in outer)
                    yield Proof(row, kind, f"{place}::{name}", breach)
                case _:
                    unread = "its arguments are not a row and a kind"
                    yield Proof(0, "", f"{place}: line {node.lineno}", unread)


def _owner(tree: ast.Module, mark: ast.Call) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and mark in node.decorator_list:
            return node
    return None


def _breach(
    file: Path, owner: ast.FunctionDef | ast.AsyncFunctionDef | None, *, collected: bool
) -> str:
    """Say why a test would not run, or might not."""
    if owner is None:
        return "the mark stands on no function"
    if not (collected and file.name.startswith("test_") and owner.name.startswith("test_")):
        return "pytest does not collect it"
    words = {node.attr for node in ast.walk(owner) if isinstance(node, ast.Attribute)}
    if skipping := words & {"skip", "skipif", "importorskip", "xfail"}:
        return f"it may be skipped: {', '.join(sorted(skipping))}"
    return ""


def render() -> str:
    """All rows, with the tests that prove them."""
    found = proofs_by_row()
    lines = [f"{letter}: {meaning}" for letter, meaning in KINDS.items()]
    for row in ROWS:
        lines += ["", f"{row.number:2} [{row.kinds}] {row.fault} -> {row.must}"]
        if row.note:
            lines.append(f"      ({row.note})")
        seen = sorted(found[row.number], key=lambda proof: ("VSR".find(proof.kind), proof.test))
        lines += [f"      {proof.kind} {proof.test}" for proof in seen]
        missing = set(row.kinds) - {proof.kind for proof in seen}
        lines += [f"      {kind} missing" for kind in sorted(missing)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render() + "\n")
