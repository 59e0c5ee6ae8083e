"""What all tests share: helpers in `support` explain their failed assertions too."""

from __future__ import annotations

import pytest


pytest.register_assert_rewrite("support")
