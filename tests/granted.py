"""What README.md has an owner grant to the role of the processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[1] / "README.md"
ROLE: Final = "app"


def granted_by_readme() -> str:
    """The statements as they stand there, to a role called `app`."""
    [block] = re.findall(r"^```sql\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    statements = [line for line in block.splitlines() if line]
    assert all(re.match(rf"GRANT .* TO {ROLE};", line) for line in statements)
    return str(block)
