"""The wire formats that this release speaks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nursling.engine.formats.base import Format
from nursling.engine.formats.chat import CHAT
from nursling.engine.formats.responses import RESPONSES


FORMATS: Mapping[str, Format] = MappingProxyType({form.name: form for form in (CHAT, RESPONSES)})
