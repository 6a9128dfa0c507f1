"""The privileges that docs/deploy.md grants to the role of the processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[1] / "docs/deploy.md"
ROLE: Final = "app"


def granted_by_the_deploy_guide() -> str:
    """Returns the GRANT statements of the guide, for a role named `app`."""
    [block] = re.findall(r"^```sql\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    statements = [line for line in block.splitlines() if line]
    assert all(re.match(rf"GRANT .* TO {ROLE};", line) for line in statements)
    return str(block)
