"""The data that a worker starts with, and how an attempt ends."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from beamtide.config.models import Deployment
from beamtide.messages import Message
from beamtide.messages.scaling import StartStages
from beamtide.messages.tasks import Cause, Task
from beamtide.security.guard import identity_of
from beamtide.security.key_files import Identity
from cluster_side.modalities.context import ALONE, Context
from cluster_side.worker.task import ready_kernel
from cluster_side.worker.task.ready_kernel import FindModality, ReadyKernel

DEAD_MAN = 60.0
"""A worker ends after so many seconds without an answer of a service."""


Answer = TypeVar("Answer", bound=Message)


def _alone(task: Task) -> Context:
    return ALONE


class Leave(BaseException):
    """We were told to leave: raised by the signal handler of the process."""


@dataclass(frozen=True, slots=True)
class Work:
    """The data that a worker starts with."""

    deployment: Deployment
    pipeline: str
    job: str
    idle_exit: float
    ready: ReadyKernel | None = None
    find: FindModality = ready_kernel.registered
    ends: float | None = None
    """When the job ends (monotonic clock); None: no limit."""
    call: Callable[[Task], Context] = _alone
    """Makes the team of ranks that compute a task together."""
    refused: ready_kernel.SettingsRefused | None = None
    """Why there is no kernel for the pipeline's current settings."""
    stages: StartStages | None = None
    """How long the start of the job took."""

    @property
    def buffer(self) -> str:
        """The address of the buffer."""
        return self.deployment.address(f"buffer.{self.pipeline}")

    @property
    def sorter(self) -> str:
        """The address of the sorter."""
        return self.deployment.address(f"sorter.{self.pipeline}")

    @property
    def identity(self) -> Identity | None:
        """The key of this worker; None where sockets need none."""
        return identity_of(self.deployment, "worker")


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended without a result."""

    cause: Cause
    reason: str
    trace: str = ""
    stderr: str = ""
    final: bool = False
    """Whether trying again cannot help."""


def name() -> str:
    """Return the name of the worker in this process."""
    return f"{platform.node()}-{os.getpid()}"
