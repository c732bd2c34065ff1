"""`guest/` and `systemd/` hold what runs in the test machine; on the host it is not collected."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = [] if os.environ.get("PIER_GUEST") else ["guest", "systemd"]
