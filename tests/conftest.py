"""What all tests share.

Property tests draw the same examples each time, so that a red run is red again. To look for new
ones: `pytest --hypothesis-profile=explore`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings


pytest.register_assert_rewrite("support")

# No deadline: how long an example takes is the machine's affair, not the code's.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("steady")
