"""What an adapter for a protocol or framework needs, and all that it may use: see docs/adapters.md.

An adapter reads the facts of a request (`Incoming`), opens an `Exchange` on them, hands `Exchange.session` to the
application, saves before the headers go out, adds `Exchange.headers`, and saves once more when the response is done.
"""

from coatcheck.cookie import Channel
from coatcheck.exchange import AsyncExchange, Exchange
from coatcheck.exchange_base import ExchangeBase, Savepoint
from coatcheck.headers import LOGIN_REFUSED, UNAVAILABLE
from coatcheck.incoming import Incoming
from coatcheck.record import Reason
from coatcheck.saved import Saved
from coatcheck.token import Token

__all__ = [
    "LOGIN_REFUSED",
    "UNAVAILABLE",
    "AsyncExchange",
    "Channel",
    "Exchange",
    "ExchangeBase",
    "Incoming",
    "Reason",
    "Saved",
    "Savepoint",
    "Token",
]
