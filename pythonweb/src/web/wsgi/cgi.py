"""Form fields: ``environ['web.cgi']``, with the interface of the ``cgi.FieldStorage`` that Python had until 3.12.

The body is read before the application is called if its Content-Type is that of a form. Any other body (JSON, a
file) is left unread in ``wsgi.input``. Fields of the form come first, fields of the query string after them.
"""

# ruff: noqa: N803 -- the names are camelCase, as all names of the 2005 reference

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, NoReturn
from urllib.parse import parse_qsl
from wsgiref.headers import Headers as PartHeaders
from wsgiref.types import StartResponse, WSGIApplication

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from web.wsgi.base import BaseMiddleware, ClosingBody

__all__ = ["CGI", "Field", "FieldStorage", "FormError", "Repeated"]

_BLOCK = 64 * 1024
# Parts up to this size stay in memory, larger ones go to an unnamed temporary file.
_SPOOL = 64 * 1024
_BAD = "400 Bad Request"
_TOO_LARGE = "413 Content Too Large"
# Codecs that a client may not choose: no charsets of web pages, and some take quadratic time.
_REFUSED_CODECS = frozenset({"idna", "punycode", "utf-7", "unicode_escape", "raw_unicode_escape", "undefined"})


class FormError(Exception):
    """A form that cannot be read; the message is one line that may be shown to the client.

    Attributes:
        status: The status line that answers it.
    """

    def __init__(self, message: str, status: str = _BAD) -> None:
        super().__init__(message)
        self.status = status


class Field:
    """One field of a form.

    Attributes:
        name: The name of the field.
        filename: The client's name of an uploaded file, None for any other field. Never use it as a path.
        file: The uploaded file, open for binary reading until the response has ended; None for any other field.
        type: The media type that the client gave, in lower case; None if it gave none.
        headers: The headers of this part of a multipart form, looked up without regard to case; else empty.
    """

    def __init__(
        self,
        name: str,
        value: str = "",
        filename: str | None = None,
        file: IO[bytes] | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        self.filename = filename
        self.file = file
        self.headers = PartHeaders(list(headers))
        content_type = self.headers.get("Content-Type")
        self.type = content_type.partition(";")[0].strip().lower() if content_type else None
        self._value = value

    @property
    def value(self) -> str | bytes:
        """Return the text of the field, or all bytes of the upload. The position of `file` does not change."""
        if self.file is None:
            return self._value
        position = self.file.tell()
        self.file.seek(0)
        try:
            return self.file.read()
        finally:
            self.file.seek(position)

    @value.setter
    def value(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        # The value may be a password.
        return f"Field({self.name!r}{'' if self.filename is None else f', filename={self.filename!r}'})"


class Repeated(list[Field]):
    """The fields of one name, in order."""

    @property
    def value(self) -> str | bytes:
        """The value of the first one: a program that expects one field reads it as if it were alone."""
        return self[0].value


class FieldStorage:
    """The fields of one request. A blank one (``name=``, or ``name`` alone) is a field with the value ``''``.

    Args:
        fields: The fields, in order.

    Attributes:
        list: All fields, in order.
    """

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.list = [*fields]

    def __getitem__(self, key: str) -> Field | Repeated:
        """Return the field of that name, or the list of fields if it is repeated.

        Raises:
            KeyError: No field has that name.
        """
        found = self._named(key)
        if not found:
            raise KeyError(key)
        return found[0] if len(found) == 1 else Repeated(found)

    def has_key(self, key: str) -> bool:
        """Return whether a field has that name."""
        return key in self

    def keys(self) -> list[str]:
        """Return the names of all fields, each once, in order."""
        return [*dict.fromkeys(field.name for field in self.list)]

    def getvalue(self, key: str, default: Any = None) -> Any:
        """Return the value of a field, the list of values if it is repeated, or *default* if it is missing."""
        values = self.getlist(key)
        if not values:
            return default
        return values[0] if len(values) == 1 else values

    def getfirst(self, key: str, default: Any = None) -> Any:
        """Return the value of the first field of that name, or *default* if there is none."""
        found = self._named(key)
        return found[0].value if found else default

    def getlist(self, key: str) -> list[str | bytes]:
        """Return the values of all fields of that name; empty if there is none."""
        return [field.value for field in self._named(key)]

    def close(self) -> None:
        """Close the uploaded files."""
        for field in self.list:
            if field.file is not None:
                field.file.close()

    def _named(self, key: str) -> list[Field]:
        return [field for field in self.list if field.name == key]

    def __contains__(self, key: object) -> bool:
        return any(field.name == key for field in self.list)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return bool(self.list)

    def __repr__(self) -> str:
        return f"FieldStorage({self.list!r})"


class CGI(BaseMiddleware):
    """Middleware that adds ``environ['web.cgi']``, a `FieldStorage`.

    A malformed form is answered with 400, one that is too large with 413, each with one line that has the reason; the
    application is not called. A form's body is not left to be read again, but that of an urlencoded form is replayed.

    Args:
        application: The WSGI application.
        maxBody: The most bytes that a form may have.
        maxFields: The most fields, uploads included, that the form and the query string may have, each.
        maxFiles: The most uploaded files.

    Raises:
        ValueError: A limit is not a positive number.
    """

    def __init__(
        self,
        application: WSGIApplication,
        maxBody: int = 10 * 1024 * 1024,
        maxFields: int = 1000,
        maxFiles: int = 100,
    ) -> None:
        super().__init__(application)
        limits: dict[str, Any] = {"maxBody": maxBody, "maxFields": maxFields, "maxFiles": maxFiles}
        for name, limit in limits.items():
            if not isinstance(limit, int) or limit < 1:
                raise ValueError(f"CGI({name}={limit!r}): pass a whole number, 1 or more")
        self.maxBody = maxBody
        self.maxFields = maxFields
        self.maxFiles = maxFiles

    def fields(self, environ: dict[str, Any]) -> FieldStorage:
        """Read the fields of a request.

        Raises:
            FormError: The form is malformed or too large.
        """
        storage = FieldStorage()
        try:
            _FieldReader(self, environ, storage.list).read()
        except BaseException:
            storage.close()
            raise
        return storage

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Read the form, then pass the request on."""
        if isinstance(environ.get("web.cgi"), FieldStorage):
            # Another CGI around this one read the body already.
            return super().__call__(environ, start_response)
        try:
            storage = self.fields(environ)
        except FormError as error:
            return _refuse(error, start_response)
        environ["web.cgi"] = storage
        try:
            body = super().__call__(environ, start_response)
        except BaseException:
            storage.close()
            raise
        return ClosingBody(body, storage.close) if any(field.file for field in storage.list) else body


class _FieldReader:
    """Reads the fields of one request into a list, which has the open files even if reading fails."""

    def __init__(self, limits: CGI, environ: dict[str, Any], fields: list[Field]) -> None:
        self.limits = limits
        self.environ = environ
        self.fields = fields

    def read(self) -> None:
        method = self.environ.get("REQUEST_METHOD", "GET")
        media_type, options = parse_options_header(self.environ.get("CONTENT_TYPE") or "")
        if method not in ("GET", "HEAD"):
            if media_type == "multipart/form-data":
                charset = _charset(options.get("charset"))
                self._multipart(options.get("boundary", ""), charset)
            elif media_type in ("application/x-www-form-urlencoded", "application/x-url-encoded"):
                charset = _charset(options.get("charset"))
                body = b"".join(self._blocks())
                self.fields += self._pairs(body, charset, "the form", _TOO_LARGE)
                self._replace_input(body)
        # WSGI decodes the query string as Latin-1, whatever its bytes are.
        query = (self.environ.get("QUERY_STRING") or "").encode("latin-1", "replace")
        self.fields += self._pairs(query, "utf-8", "the query string", _BAD)

    def _pairs(self, text: bytes, charset: str, what: str, status: str) -> Iterator[Field]:
        if text.count(b"&") >= self.limits.maxFields:
            raise FormError(f"{what} has more than {self.limits.maxFields} fields", status)
        for name, value in parse_qsl(
            text.decode(charset, "replace"),
            keep_blank_values=True,
            encoding=charset,
            errors="replace",
        ):
            yield Field(name, value)

    def _blocks(self) -> Iterator[bytes]:
        """Return the body in blocks, never more of it than the limit and never past its end."""
        stream: IO[bytes] = self.environ["wsgi.input"]
        length = self._length()
        left = self.limits.maxBody + 1 if length is None else length
        while left > 0:
            block = stream.read(min(left, _BLOCK))
            if not block:
                break
            left -= len(block)
            if length is None and left <= 0:
                self._too_large()
            yield block
        if length is not None and left > 0:
            raise FormError(f"the body ended {left} bytes before its Content-Length")

    def _length(self) -> int | None:
        """Return the length of the body, or None if the server marks its end instead."""
        stated = self.environ.get("CONTENT_LENGTH") or ""
        if stated:
            # isdigit() alone takes digits of other scripts, and int() a length of any number of them.
            if not (stated.isascii() and stated.isdigit()):
                raise FormError("Content-Length is not a number")
            if len(stated.lstrip("0")) > len(str(self.limits.maxBody)) or int(stated) > self.limits.maxBody:
                self._too_large()
            return int(stated)
        if self.environ.get("wsgi.input_terminated"):
            return None
        if self.environ.get("HTTP_TRANSFER_ENCODING"):
            # The server passes the connection itself: a read would wait for ever.
            raise FormError("a body without Content-Length cannot be read by this server", "411 Length Required")
        return 0

    def _too_large(self) -> NoReturn:
        raise FormError(f"the body is larger than {self.limits.maxBody} bytes", _TOO_LARGE)

    def _multipart(self, boundary: str, charset: str) -> None:
        if not boundary:
            raise FormError("Content-Type multipart/form-data has no boundary")
        try:
            parser = PushMultipartParser(boundary, max_segment_count=self.limits.maxFields)
            part: _FormPart | None = None
            for block in self._blocks():
                if parser.closed:
                    continue  # what follows the last boundary is read and ignored
                for event in parser.parse(block):
                    if isinstance(event, MultipartSegment):
                        part = self._part(event, charset)
                    elif part is not None and event:
                        part.write(event)
                    elif part is not None:
                        part.finish()
            parser.close()
        except ParserLimitReached as error:
            raise FormError(f"the multipart form is too large: {_line(error)}", _TOO_LARGE) from None
        except (MultipartError, UnicodeError) as error:
            raise FormError(f"the multipart form is malformed: {_line(error)}") from None
        self._replace_input(b"")

    def _part(self, segment: MultipartSegment, charset: str) -> _FormPart:
        if not segment.name:
            raise FormError("the multipart form is malformed: a part has no name")
        file: IO[bytes] | None = None
        if segment.filename is not None:
            if sum(field.file is not None for field in self.fields) >= self.limits.maxFiles:
                raise FormError(f"the form has more than {self.limits.maxFiles} files", _TOO_LARGE)
            file = SpooledTemporaryFile(_SPOOL)  # noqa: SIM115 -- closed with the response
        field = Field(segment.name, filename=segment.filename, file=file, headers=segment.headerlist)
        self.fields.append(field)
        return _FormPart(field, _charset(segment.charset or charset) if file is None else charset)

    def _replace_input(self, body: bytes) -> None:
        self.environ["wsgi.input"] = BytesIO(body)
        self.environ["wsgi.input_terminated"] = True
        self.environ["CONTENT_LENGTH"] = str(len(body))


class _FormPart:
    """A part of a multipart form while it is read."""

    def __init__(self, field: Field, charset: str) -> None:
        self.field = field
        self.charset = charset
        self.text: list[bytes] = []

    def write(self, block: bytes) -> None:
        if self.field.file is None:
            self.text.append(block)
        else:
            self.field.file.write(block)

    def finish(self) -> None:
        if self.field.file is None:
            self.field.value = b"".join(self.text).decode(self.charset, "replace")
        else:
            self.field.file.seek(0)


def _charset(name: str | None) -> str:
    """Return a charset that a client may request, by default UTF-8."""
    name = name or "utf-8"
    try:
        "".encode(name)  # raises LookupError for a codec that is no charset, too, such as zip
        known = codecs.lookup(name).name not in _REFUSED_CODECS
    except (LookupError, ValueError):
        known = False
    if not known:
        raise FormError(f"the charset {name[:40]!a} of the form is unknown: use utf-8")
    return name


def _line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).splitlines()[0][:200]


def _refuse(error: FormError, start_response: StartResponse) -> Iterable[bytes]:
    body = f"{error}\n".encode()
    start_response(
        error.status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    return [body]
