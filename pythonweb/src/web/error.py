"""Reports of an exception: for a page, a terminal or a log.

No report holds the value of a variable: those may be cookies or what a session holds. It shows the source around each
line of the traceback, the names and the types of the variables there, and the message of the exception, with the
values of the request's cookies taken out of it.
"""

from __future__ import annotations

import html
import linecache
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from web._script import ErrorAnswer

__all__ = ["checkReport", "cookieSecrets", "enable", "handle", "info"]

_OUTPUTS = ("debug", "traceback", "code")
_FORMATS = ("html", "text")
_HIDDEN = "[hidden]"
# A shorter secret is hidden only if it is a whole word: replacing each "1" would make a report useless.
_SHORT = 4
# Characters of all secrets together, and of a message for each secret, that are worth looking through: what a client
# sends must not buy much time. Beyond them a message is hidden as a whole.
_MOST = 64 * 1024
_MOST_WORK = 20_000_000
_TOO_MUCH = f"{_HIDDEN}: the secrets of this request are too long to search the message for them"
# Stands for what is hidden until all is: a private character, so that no secret is found in it.
_MARK = "\U0010fffd"
# A report of an endless recursion keeps this many of its first and of its last frames.
_FRAMES = 25
_CHAIN = 20

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "h1{font-size:1.4rem;white-space:pre-wrap;overflow-wrap:anywhere}h2{font-size:1rem;margin:1.5rem 0 .3rem}"
    "pre{background:#f5f5f2;padding:.6rem .8rem;overflow-x:auto;margin:.2rem 0 .6rem}"
    "pre b{display:block;background:#ffe3b3}"
    ".where{color:#555;overflow-wrap:anywhere}.types{color:#555;font-size:.85rem}"
)


@dataclass
class _Frame:
    filename: str
    line: int
    function: str
    source: list[tuple[int, str]]
    types: list[tuple[str, str]]


@dataclass
class _ChainLink:
    """One exception of a chain; *relation* describes how it led to the next one."""

    message: str
    frames: list[_Frame]
    skipped: int
    relation: str = ""


def info(
    output: str = "debug",
    format: str = "html",  # noqa: A002 -- the parameter's name in the 2005 reference
    error: BaseException | tuple[Any, Any, Any] | None = None,
    context: int = 5,
    *,
    redact: Iterable[str] = (),
) -> str:
    """Report an exception.

    Args:
        output: ``'debug'`` is the traceback with the source around each line and the types of the variables
            there; ``'traceback'`` what Python itself prints; ``'code'`` the source around the line that failed.
        format: ``'html'``, everything in it escaped (``'debug'`` is a whole page, the others are a ``<pre>``), or
            ``'text'``.
        error: The exception, or a tuple as returned by `sys.exc_info`. Default: the exception being handled.
        context: How many lines of source to show around each line of the traceback.
        redact: Texts that the report must not hold. The values of the cookies in the environment of the process,
            where a CGI script finds them, are never in it. If they are too long or too many to search for, the
            messages of the exceptions are left out.

    Returns:
        The report.

    Raises:
        ValueError: An argument has no meaning, or no exception is being handled.
    """
    checkReport(output, format, context)
    exception, trace = _exception(error)
    secrets = [*redact, *cookieSecrets(os.environ.get("HTTP_COOKIE"))]
    parts = _chain(exception, trace, 1 if output == "traceback" else context, secrets)
    if output == "code":
        return _code(parts[-1], markup=format == "html")
    if format == "text" or output == "traceback":
        text = _text(parts, full=output == "debug")
        return text if format == "text" else f"<pre>{html.escape(text)}</pre>\n"
    return _page(parts)


def checkReport(output: str, format: str, context: int) -> None:  # noqa: A002, N802 -- see above and below
    """Check the arguments that say what a report is like; see `info`.

    Raises:
        ValueError: An argument has no meaning.
    """
    if output not in _OUTPUTS:
        raise ValueError(f"info(output={output!r}): use one of {', '.join(map(repr, _OUTPUTS))}")
    if format not in _FORMATS:
        raise ValueError(f"info(format={format!r}): use one of {', '.join(map(repr, _FORMATS))}")
    if context < 0:
        raise ValueError(f"info(context={context!r}): pass a number of lines, 0 or more")


def enable(
    output: str = "debug",
    format: str = "html",  # noqa: A002 -- the parameter's name in the 2005 reference
    context: int = 5,
    *,
    debug: bool | None = None,
) -> None:
    """Answer with a page for what a CGI script raises, from now on.

    The page has the headers that the script has not printed yet, status 500 among them. If the headers are out, it
    follows what was printed. The log (`logging.getLogger('web.error')`) has the traceback in any case, on standard
    error if logging is not set up. A script that answers no request, as on a terminal, fails as without this call.

    Args:
        output: What the page shows, see `info`.
        format: See `info`; text if the script has declared a type other than HTML.
        context: See `info`.
        debug: Who sees the report: True for all clients, False for none, None for a browser on this machine, as far
            as the request proves that (see `web.wsgi.error.Error`). Others see a reference, which is in the log too.

    Raises:
        ValueError: An argument has no meaning.
    """
    sys.excepthook = ErrorAnswer(output, format, context, debug).hook


def handle(
    error: Exception | None = None,
    output: str = "debug",
    format: str = "html",  # noqa: A002 -- the parameter's name in the 2005 reference
    context: int = 5,
    *,
    debug: bool | None = None,
) -> None:
    """Answer with a page for an error that a CGI script has caught; if there is none, do as `enable` does.

    Args:
        error: The error; without it, the one that is being handled.
        output: See `enable`, and so the ones that follow.
        format: See there.
        context: See there.
        debug: See there.

    Raises:
        ValueError: An argument has no meaning.
    """
    answer = ErrorAnswer(output, format, context, debug)
    found = sys.exc_info()[1] if error is None else error
    if isinstance(found, Exception):
        answer.to(found)
    else:
        sys.excepthook = answer.hook


def cookieSecrets(header: str | None) -> list[str]:  # noqa: N802 -- camelCase, as all names here
    """List the texts of a Cookie header that a report must not hold: its values, in each of their spellings.

    Args:
        header: The value of the header, or None if the request has none.

    Returns:
        The texts, for the *redact* of `info`; of a header that is longer than any browser's, the header alone, which
        has `info` leave out the messages.
    """
    if not header:
        return []
    if len(header) > _MOST:
        return [header]
    found = [header]
    for pair in header.split(";"):
        value = pair.partition("=")[2].strip()
        found += [value, value.strip('"'), unquote(value.strip('"'))]
    found += [repr(text)[1:-1] for text in found]
    return [*dict.fromkeys(text for text in found if text)]


def _redacted(text: str, secrets: Sequence[str]) -> str | None:
    """Return *text* without the secrets, or None if that takes too long."""
    if sum(map(len, secrets)) > _MOST or len(text) * len(secrets) > _MOST_WORK:
        return None
    # No pattern of them all: to compile one takes long, and `re` keeps hundreds.
    found = {secret for secret in secrets if secret and secret in text}
    text = _without(text, {secret for secret in found if len(secret) >= _SHORT})
    return _without_words(text, {secret for secret in found if len(secret) < _SHORT}).replace(_MARK, _HIDDEN)


def _without(text: str, secrets: set[str]) -> str:
    """Replace every part of *text* that secrets cover by the mark, so that no part of overlapping ones is left."""
    if not secrets:
        return text
    covered = bytearray(len(text))
    for secret in secrets:
        end = 0
        start = text.find(secret)
        while start >= 0:
            fresh = max(start, end)
            end = start + len(secret)
            covered[fresh:end] = b"\1" * (end - fresh)
            start = text.find(secret, start + 1)
    made: list[str] = []
    position = 0
    while position < len(text):
        is_secret = covered[position]
        end = covered.find(not is_secret, position)
        end = len(text) if end < 0 else end
        made.append(_MARK if is_secret else text[position:end])
        position = end
    return "".join(made)


def _without_words(text: str, words: set[str]) -> str:
    """Replace each of some short texts by the mark, if there is no letter or digit next to it."""
    if not words:
        return text
    made: list[str] = []
    position = 0
    while position < len(text):
        for length in range(_SHORT - 1, 0, -1):
            end = position + length
            if text[position:end] in words and not _is_in_word(text, position - 1) and not _is_in_word(text, end):
                made.append(_MARK)
                position = end
                break
        else:
            made.append(text[position])
            position += 1
    return "".join(made)


def _is_in_word(text: str, position: int) -> bool:
    return 0 <= position < len(text) and (text[position].isalnum() or text[position] in ("_", _MARK))


def _exception(error: BaseException | tuple[Any, Any, Any] | None) -> tuple[BaseException, TracebackType | None]:
    if isinstance(error, BaseException):
        return error, error.__traceback__
    _, exception, trace = sys.exc_info() if error is None else error
    if not isinstance(exception, BaseException):
        raise ValueError(  # noqa: TRY004 -- what is missing is the exception, whatever stands in its place
            "info() has no exception to report: call it in an except clause, or pass error="
        )
    return exception, trace if trace is not None else exception.__traceback__


def _chain(
    exception: BaseException | None, trace: TracebackType | None, context: int, secrets: list[str]
) -> list[_ChainLink]:
    """List an exception and those that led to it, the first one first."""
    parts: list[_ChainLink] = []
    seen: set[int] = set()
    relation = ""
    while exception is not None and id(exception) not in seen and len(parts) < _CHAIN:
        seen.add(id(exception))
        frames, skipped = _frames(trace, context)
        # Only messages can hold what a client sent: the source is on the disk, and no values are shown. To hide
        # words of a cookie in the source too would let a client spoil the log.
        message = _redacted(_message(exception), secrets)
        if message is None:
            message = f"{type(exception).__qualname__}: {_TOO_MUCH}"
        parts.append(_ChainLink(message, frames, skipped, relation))
        cause = exception.__cause__
        relation = "The above exception was the direct cause of the following exception:"
        if cause is None and not exception.__suppress_context__:
            cause = exception.__context__
            relation = "During handling of the above exception, another exception occurred:"
        exception, trace = cause, cause.__traceback__ if cause is not None else None
    return parts[::-1]


def _message(exception: BaseException) -> str:
    lines = "".join(traceback.format_exception_only(exception)).rstrip("\n")
    if isinstance(exception, BaseExceptionGroup):
        for member in exception.exceptions:
            lines += "\n  | " + _message(member).replace("\n", "\n  | ")
    return lines


def _frames(trace: TracebackType | None, context: int) -> tuple[list[_Frame], int]:
    """List the frames of a traceback, the innermost last, and count those left out in the middle."""
    steps = list(traceback.walk_tb(trace))
    skipped = max(0, len(steps) - 2 * _FRAMES)
    if skipped:
        steps = steps[:_FRAMES] + steps[-_FRAMES:]
    frames = []
    for frame, line in steps:
        code = frame.f_code
        # The variables of a module are all that it defines: no help, and long.
        local = {} if code.co_name == "<module>" else frame.f_locals
        frames.append(
            _Frame(
                code.co_filename,
                line or 0,
                code.co_name,
                _source(code.co_filename, line or 0, context, frame.f_globals),
                [(str(name), type(value).__qualname__) for name, value in local.items()],
            )
        )
    return frames, skipped


def _source(filename: str, line: int, context: int, module: dict[str, Any]) -> list[tuple[int, str]]:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, module)
    first = max(1, line - context // 2)
    return [(number, lines[number - 1].rstrip()) for number in range(first, min(first + context, len(lines) + 1))]


def _listing(frame: _Frame) -> Iterator[tuple[bool, str]]:
    for number, text in frame.source:
        yield number == frame.line, f"{'->' if number == frame.line else '  '} {number:5d}  {text}"


def _types(frame: _Frame) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in frame.types)


def _text(parts: list[_ChainLink], *, full: bool) -> str:
    lines: list[str] = []
    for part in parts:
        lines += ["Traceback (most recent call last):"] if part.frames else []
        for position, frame in enumerate(part.frames):
            if part.skipped and position == _FRAMES:
                lines.append(f"  [{part.skipped} more frames]")
            lines.append(f'  File "{frame.filename}", line {frame.line}, in {frame.function}')
            if full:
                lines += [f"  {text}" for _, text in _listing(frame)]
                lines += [f"     variables: {_types(frame)}"] if frame.types else []
            else:
                lines += [f"    {text.strip()}" for _, text in frame.source]
        lines.append(part.message)
        lines += ["", part.relation, ""] if part.relation else []
    return "\n".join(lines) + "\n"


def _code(part: _ChainLink, *, markup: bool) -> str:
    frame = part.frames[-1] if part.frames else _Frame("", 0, "", [], [])
    if markup:
        return _marked(frame)
    return "".join(f"{text}\n" for _, text in _listing(frame))


def _marked(frame: _Frame) -> str:
    """Return the source around a line as HTML, that line set off."""
    lines = (f"<b>{html.escape(text)}</b>" if here else f"{html.escape(text)}\n" for here, text in _listing(frame))
    return f"<pre>{''.join(lines)}</pre>\n"


def _page(parts: list[_ChainLink]) -> str:
    title = html.escape(parts[-1].message.partition("\n")[0])
    body: list[str] = []
    for part in parts:
        body.append(f"<h1>{html.escape(part.message)}</h1>\n")
        for position, frame in enumerate(part.frames):
            if part.skipped and position == _FRAMES:
                body.append(f"<p>{part.skipped} more frames</p>\n")
            where = html.escape(f"{frame.filename}, line {frame.line}")
            body.append(f'<h2>{html.escape(frame.function)} <span class="where">{where}</span></h2>\n{_marked(frame)}')
            if frame.types:
                body.append(f'<p class="types">Variables: {html.escape(_types(frame))}</p>\n')
        if part.relation:
            body.append(f"<p>{html.escape(part.relation)}</p>\n")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{''.join(body)}</body></html>\n"
    )
