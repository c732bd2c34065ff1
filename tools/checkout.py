"""Let the virtual environment this runs in import `pier` from a checkout, for tests and linters: `checkout.py FOLDER`.

The commands themselves do not look at it (see launchers.py).
"""

import sys
import sysconfig
from pathlib import Path

Path(sysconfig.get_path("purelib"), "pier-checkout.pth").write_text(f"{Path(sys.argv[1]).resolve()}\n")
