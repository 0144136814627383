"""The only package that uses ZeroMQ: the loop of a service, and a client (`Caller`) for everything without a core."""

from beamtide.pump.caller import Answer, Caller
from beamtide.pump.loop import Pump, stop_on_signals
from beamtide.pump.publisher import Publisher
from beamtide.pump.shell import Outside, Store
from beamtide.pump.sockets import CONTROL_MESSAGE, MAX_MESSAGE, Limits

__all__ = [
    "CONTROL_MESSAGE",
    "MAX_MESSAGE",
    "Answer",
    "Caller",
    "Limits",
    "Outside",
    "Publisher",
    "Pump",
    "Store",
    "stop_on_signals",
]
