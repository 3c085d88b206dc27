"""Server-side sessions that two requests cannot corrupt and that logout really ends.

    app = coatcheck.wsgi.SessionMiddleware(app, "sqlite:///sessions.db")

and in the application ``environ["coatcheck.session"]["cart"] = ["umbrella"]``.
"""

from coatcheck.codec import Codec
from coatcheck.drivers import open_driver as open  # noqa: A004 (coatcheck.open reads as what it does)
from coatcheck.drivers.base import Capability, Driver
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
    UnstorableValue,
    UnsupportedCapability,
    ValueTooLarge,
)
from coatcheck.events import Event, Kind
from coatcheck.manager import SessionManager
from coatcheck.policy import Policy
from coatcheck.record import SessionInfo
from coatcheck.session import Session, Store

__all__ = [
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
    "Kind",
    "MissingExtra",
    "NotACounter",
    "Policy",
    "Session",
    "SessionInfo",
    "SessionManager",
    "SessionNotLoaded",
    "SessionUnavailable",
    "Store",
    "UnstorableValue",
    "UnsupportedCapability",
    "ValueTooLarge",
    "open",
]

__version__ = "0.1.0"
