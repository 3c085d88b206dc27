"""Server-side sessions that two requests cannot corrupt and that logout really ends.

    app = coatcheck.wsgi.SessionMiddleware(app, "sqlite:///sessions.db")

and in the application ``environ["coatcheck.session"]["cart"] = ["umbrella"]``.
"""

from coatcheck.codec import Codec
from coatcheck.drivers import open_async_driver as async_driver
from coatcheck.drivers import open_driver as driver
from coatcheck.drivers.base import AsyncDriver, Capability, Driver
from coatcheck.errors import (
    CoatcheckError,
    ConfigurationError,
    ConflictError,
    CounterError,
    CounterOverflow,
    DriverUnavailable,
    MissingExtra,
    NotACounter,
    SessionNotLoaded,
    SessionUnavailable,
    StaleValue,
    UnstorableValue,
    UnsupportedCapability,
    ValueTooLarge,
)
from coatcheck.events import Event, EventKind
from coatcheck.manager import AsyncSessionManager, SessionManager
from coatcheck.policy import Policy
from coatcheck.record import SessionInfo
from coatcheck.session import AsyncSession, Session, Store

__all__ = [
    "AsyncDriver",
    "AsyncSession",
    "AsyncSessionManager",
    "Capability",
    "CoatcheckError",
    "Codec",
    "ConfigurationError",
    "ConflictError",
    "CounterError",
    "CounterOverflow",
    "Driver",
    "DriverUnavailable",
    "Event",
    "EventKind",
    "MissingExtra",
    "NotACounter",
    "Policy",
    "Session",
    "SessionInfo",
    "SessionManager",
    "SessionNotLoaded",
    "SessionUnavailable",
    "StaleValue",
    "Store",
    "UnstorableValue",
    "UnsupportedCapability",
    "ValueTooLarge",
    "async_driver",
    "driver",
]

__version__ = "0.1.0"
