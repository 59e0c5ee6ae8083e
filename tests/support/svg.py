"""Pictures that we have drawn ourselves, read again."""

from __future__ import annotations

from xml.etree import ElementTree as ET


SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ET.Element:
    """The root of a picture; it is well-formed."""
    root = ET.fromstring(text)  # noqa: S314 - it is ours
    assert root.tag == f"{SVG}svg"
    return root
