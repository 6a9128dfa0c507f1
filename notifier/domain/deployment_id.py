"""Which deployment a message belongs to: two of them may share a RabbitMQ by mistake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DeploymentId:
    """The id of this deployment, shared by the parts of a process; empty until it is known.

    It is the same for all processes with one database, and another one for every other database.
    """

    value: str = ""

    def is_foreign(self, other: str) -> bool:
        """Whether `other` is the id of another deployment. An unknown id is nobody's."""
        return bool(self.value and other) and self.value != other
