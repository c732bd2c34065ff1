"""`guest/` holds what runs in the test machine; on the host it is not for collecting."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("PIER_GUEST") else ["guest"]
