"""Header fields: a small multi-map, and the grammars of the values a handshake reads.

RFC 9110 section 5 (fields, lists, tokens, quoted strings) and RFC 6455 section 9.1 (extensions).
Every reader here goes over its input once, from left to right: no field that a peer can send
costs more than its length.

Compiled with headers.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..exceptions import InvalidHeader

__all__ = [
    "ExtensionList",
    "Headers",
    "check_field",
    "format_extensions",
    "is_token",
    "make_headers",
    "parse_extensions",
    "parse_token_list",
    "parse_upgrade",
]

#: Extensions with their parameters, in the order of the field.
ExtensionList = list[tuple[str, list[tuple[str, "str | None"]]]]

# RFC 9110 section 5.6.2: tchar.
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# RFC 9110 section 5.5: a value is VCHAR, SP, HTAB and obs-text.
_FIELD_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# RFC 9110 section 5.6.4: what may stand in a quoted string as itself; `"` and `\` may not.
_QUOTED = frozenset(map(chr, (0x09, 0x20, 0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F), *range(0x80, 0x100))))
_QUOTED_PAIR = _QUOTED | {'"', "\\"}


# Elements of a list, and parameters, in all lines of a field. A head has room for tens of thousands, which
# take as long to read as hundreds of handshakes, and nobody else has a turn meanwhile.
_MAX_ELEMENTS = 256


def is_token(value: str) -> bool:
    """Tell whether `value` is a token (RFC 9110 section 5.6.2)."""
    return value != "" and value.isascii() and not value.encode("ascii").translate(None, _TOKEN)


def check_field(name: str, value: str) -> None:
    """Check a header field that the application supplies.

    Args:
        name: the field's name, a token.
        value: its value: printable latin-1, spaces and tabs inside.

    Raises:
        TypeError: if one of them is not a str.
        ValueError: if one of them cannot stand in a head: CR, LF, NUL and other control
            characters would let it write further fields, or a response of its own.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a header field is a str, not {name!r}")
    if not isinstance(value, str):
        raise TypeError(f"the value of header field {name} is a str, not {type(value).__name__}")
    if not is_token(name):
        # A value that stands in the name's place, or behind it, is nothing for a log.
        shown = name
        for mark in ":= \t":
            shown = shown.partition(mark)[0]
        if shown != name:
            shown += "..."
        raise ValueError(f"{shown!r} is not the name of a header field (RFC 9110 section 5.6.2)")
    # The value may be secret, and stands in no message.
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"header field {name} takes latin-1 only: character {error.start + 1} of {len(value)} is "
            f"{value[error.start]!r}; encode it first"
        ) from None
    wrong = encoded.translate(None, _FIELD_VALUE)
    if wrong:
        raise ValueError(
            f"header field {name} takes no control characters: character {encoded.index(wrong[0]) + 1} of "
            f"{len(value)} is {chr(wrong[0])!r}"
        )
    # RFC 9110 section 5.5: "A field value does not include ... leading or trailing whitespace".
    if encoded != encoded.strip(b" \t"):
        raise ValueError(f"header field {name} takes no space at its ends: strip() it first")


class Headers:
    """Header fields in the order received; names compare without regard to case.

    Three parallel tuples and no dict: one of these is kept for every connection, has some ten
    fields, and is looked into a few times. `tuple.index` is faster than a dict is built.

    Args:
        fields: (name, value) pairs, or a mapping.
    """

    __slots__ = ("_keys", "_names", "_values")

    _keys: tuple[str, ...]
    _names: tuple[str, ...]
    _values: tuple[str, ...]

    def __init__(self, fields: Iterable[tuple[str, str]] | Mapping[str, str] | Headers = ()) -> None:
        if isinstance(fields, (Mapping, Headers)):
            fields = fields.items()
        pairs = list(fields)
        self._names = tuple([name for name, _ in pairs])
        self._values = tuple([value for _, value in pairs])
        self._keys = tuple([name.lower() for name in self._names])

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a field, or `default`."""
        key = name.lower()
        return self._values[self._keys.index(key)] if key in self._keys else default

    def get_all(self, name: str) -> list[str]:
        """Return all values of a field, in order."""
        key = name.lower()
        keys = self._keys
        size = len(key)
        values = []
        for index in range(len(keys)):
            found = keys[index]
            # Most names differ in length, which is seen without a call.
            if len(found) == size and found == key:
                values.append(self._values[index])
        return values

    def count(self, name: str) -> int:
        """Return how often a field is there."""
        return self._keys.count(name.lower())

    def add(self, name: str, value: str) -> None:
        """Add a field behind the others; one of the same name stays."""
        self._keys += (name.lower(),)
        self._names += (name,)
        self._values += (value,)

    def items(self) -> list[tuple[str, str]]:
        """Return the (name, value) pairs as received."""
        return list(zip(self._names, self._values, strict=True))

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[self._keys.index(name.lower())]
        except ValueError:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._keys == other._keys and self._values == other._values

    # Mutable, so not hashable.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.items()!r})"


def make_headers(keys: tuple[str, ...], names: tuple[str, ...], values: tuple[str, ...]) -> Headers:
    """Build a `Headers` from what a parser has already taken apart; `keys` are the names in lower case."""
    headers: Headers = Headers.__new__(Headers)
    headers._keys = keys
    headers._names = names
    headers._values = values
    return headers


def _check_count(values: list[str], name: str, separators: str = ",") -> None:
    """Raise if there are too many elements, empty ones among them."""
    if len(values) + sum(map(len, values)) <= _MAX_ELEMENTS:
        return  # A separator is a character: there cannot be more.
    count = len(values) + sum([value.count(separator) for value in values for separator in separators])
    if count > _MAX_ELEMENTS:
        raise InvalidHeader(
            f"{name} has {count} elements, more than {_MAX_ELEMENTS}", name, ", ".join(values)
        )


def _elements(values: list[str], name: str) -> Iterator[str]:
    """Give the elements of a comma list that has no quoted strings.

    RFC 9110 section 5.6.1: several lines are one list; empty elements are skipped.
    """
    _check_count(values, name)
    for value in values:
        for element in value.split(","):
            stripped = element.strip(" \t")
            if stripped:
                yield stripped


def parse_token_list(values: Iterable[str], name: str = "") -> list[str]:
    """Read a comma-separated list of tokens, such as `Connection` (RFC 9110 section 5.6.1).

    Args:
        values: the field's values, one for each line.
        name: the field's name, for the error.

    Returns:
        The tokens in order, as spelt; empty elements are skipped.

    Raises:
        InvalidHeader: if an element is not a token, or there are more than 256.
    """
    values = list(values)
    tokens = list(_elements(values, name or "list"))
    for token in tokens:
        if not is_token(token):
            # Among the subprotocols it may be somebody's credentials.
            wrong = next(character for character in token if not is_token(character))
            raise InvalidHeader(
                f"{name or 'list'} has an element with {wrong!r}, which is not a token",
                name,
                ", ".join(values),
            )
    return tokens


def parse_upgrade(values: Iterable[str]) -> list[str]:
    """Read `Upgrade` (RFC 9110 section 7.8): a list of protocols, "name" or "name/version".

    Raises:
        InvalidHeader: if an element is neither, or there are more than 256.
    """
    values = list(values)
    protocols = list(_elements(values, "Upgrade"))
    for protocol in protocols:
        protocol_name, slash, version = protocol.partition("/")
        if not is_token(protocol_name) or (slash and not is_token(version)):
            raise InvalidHeader(
                f"Upgrade has {protocol!r}, which is not a protocol", "Upgrade", ", ".join(values)
            )
    return protocols


class _Scanner:
    """A cursor over one field value; it only ever moves forward."""

    __slots__ = ("field", "length", "position", "text")

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field
        self.position = 0
        self.length = len(text)

    def fail(self, expected: str) -> InvalidHeader:
        found = repr(self.text[self.position]) if self.position < self.length else "the end"
        return InvalidHeader(
            f"{self.field}: expected {expected} at position {self.position}, found {found}",
            self.field,
            self.text,
        )

    def skip_space(self) -> None:
        """Skip OWS (RFC 9110 section 5.6.3)."""
        while self.position < self.length and self.text[self.position] in " \t":
            self.position += 1

    def peek(self) -> str:
        """Return the character at the cursor, or "" at the end."""
        return self.text[self.position] if self.position < self.length else ""

    def token(self, expected: str) -> str:
        start = self.position
        while self.position < self.length and self.text[self.position] in _TOKEN_CHARACTERS:
            self.position += 1
        if start == self.position:
            raise self.fail(expected)
        return self.text[start : self.position]

    def quoted_token(self) -> str:
        """Read a quoted string whose content is a token; the cursor stands on its first quote."""
        start = self.position
        self.position += 1
        content: list[str] = []
        while True:
            character = self.peek()
            self.position += 1
            if character == '"':
                break
            allowed = _QUOTED
            if character == "\\":
                character = self.peek()
                self.position += 1
                allowed = _QUOTED_PAIR
            if character not in allowed:
                self.position -= 1
                raise self.fail("a quoted string that ends")
            content.append(character)
        value = "".join(content)
        # RFC 6455 section 9.1: "the value after quoted-string unescaping MUST conform to the
        # 'token' ABNF".
        if not is_token(value):
            self.position = start
            raise self.fail("a quoted token")
        return value


_TOKEN_CHARACTERS = frozenset(_TOKEN.decode("ascii"))


def parse_extensions(values: Iterable[str], name: str = "Sec-WebSocket-Extensions") -> ExtensionList:
    """Read `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

    Args:
        values: the field's values, one for each line; several lines are one list.
        name: the field's name, for the error.

    Returns:
        (extension, parameters) in order, parameters as (name, value or None) with quotes
        taken off. Nothing is judged: an unknown or repeated extension or parameter is here.

    Raises:
        InvalidHeader: if a value is malformed, or there are more than 256 extensions and parameters.
    """
    extensions: ExtensionList = []
    values = list(values)
    _check_count(values, name, ",;")
    for text in values:
        scanner = _Scanner(text, name)
        while True:
            scanner.skip_space()
            if scanner.peek() not in (",", ""):
                extensions.append(_extension(scanner))
            if scanner.peek() == "":
                break
            if scanner.peek() != ",":
                raise scanner.fail("',' or ';'")
            scanner.position += 1
    return extensions


def _extension(scanner: _Scanner) -> tuple[str, list[tuple[str, str | None]]]:
    """Read one extension with its parameters, and the space behind it."""
    extension = scanner.token("an extension")
    parameters: list[tuple[str, str | None]] = []
    scanner.skip_space()
    while scanner.peek() == ";":
        scanner.position += 1
        scanner.skip_space()
        parameter = scanner.token("a parameter")
        scanner.skip_space()
        value: str | None = None
        if scanner.peek() == "=":
            scanner.position += 1
            scanner.skip_space()
            value = scanner.quoted_token() if scanner.peek() == '"' else scanner.token("a value")
            scanner.skip_space()
        parameters.append((parameter, value))
    return extension, parameters


def format_extensions(extensions: Iterable[tuple[str, Iterable[tuple[str, str | None]]]]) -> str:
    """Write `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

    Raises:
        ValueError: if a name or a value is not a token.
    """
    written: list[str] = []
    for extension, parameters in extensions:
        parts = [extension]
        for parameter, value in parameters:
            parts.append(parameter if value is None else f"{parameter}={value}")
            if value is not None and not is_token(value):
                raise ValueError(f"{value!r}, the value of {parameter}, is not a token")
        for part in (extension, *(parameter for parameter, _ in parameters)):
            if not is_token(part):
                raise ValueError(f"{part!r} is not a token (RFC 6455 section 9.1)")
        written.append("; ".join(parts))
    return ", ".join(written)
