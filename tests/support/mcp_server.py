"""An MCP server of one tool, as a program: JSON-RPC lines on stdin and stdout.

Run by an agent under test; uses nothing but the standard library.
"""

from __future__ import annotations

import json
import sys
from typing import Any


TOOL = {
    "name": "get_weather",
    "description": "The weather now.",
    "inputSchema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "annotations": {"readOnlyHint": True},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a method; None = it is not known here."""
    match method:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "weather", "version": "1"},
            }
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            words = f"It rains in {params['arguments']['city']}."
            return {"content": [{"type": "text", "text": words}], "isError": False}
        case "ping":
            return {}
        case _:
            return None


def main() -> None:
    """Answer until there are no more questions."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue  # a notification
        result = answer(asked["method"], asked.get("params") or {})
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        if result is None:
            said["error"] = {"code": -32601, "message": "no such method"}
        else:
            said["result"] = result
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
