"""A multipart form whose file is streamed, never whole in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

_BLOCK = 256 * 1024


class Form:
    """`multipart/form-data` with plain fields and one file.

    A file given by its path has a known length and may be sent again; pieces from an iterator can
    be sent once only.
    """

    def __init__(
        self, fields: Mapping[str, str], name: str, source: Path | bytes | Iterable[bytes]
    ) -> None:
        self.boundary = f"muster-{secrets.token_hex(16)}"
        self._source = source
        head = "".join(
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"\r\n\r\n'
            f"{value}\r\n"
            for field, value in fields.items()
        )
        head += (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{_quoted(name)}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        self._head = head.encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()
        self._begun = False

    @property
    def content_type(self) -> str:
        """The header's value."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int | None:
        """Bytes of the whole form, or None when the file's length is not known."""
        match self._source:
            case Path():
                size = self._source.stat().st_size
            case bytes():
                size = len(self._source)
            case _:
                return None
        return len(self._head) + size + len(self._tail)

    @property
    def repeatable(self) -> bool:
        """Whether `pieces` can be asked for again and gives the same bytes."""
        return not self._begun or self._again()

    def _again(self) -> bool:
        match self._source:
            case Path() | bytes() | list() | tuple():
                return True
            case _:
                return False

    def content(self) -> Iterable[bytes]:
        """The form's bytes, for one try: with a length when it is known, else to be sent chunked.

        N.B. requests sends a Content-Length only for what has a `len`; a header of that name beside
        a generator makes it send both lengths, and the server reads nonsense.
        """
        length = self.length
        return self.pieces() if length is None else _Sized(self.pieces, length)

    def pieces(self) -> Iterator[bytes]:
        """The form's bytes."""
        yield self._head
        self._begun = True
        match self._source:
            case Path():
                with self._source.open("rb") as file:
                    while block := file.read(_BLOCK):
                        yield block
            case bytes():
                yield self._source
            case _:
                # An empty piece would end a chunked body early.
                yield from (piece for piece in self._source if piece)
        yield self._tail


class _Sized:
    """Bytes in pieces whose total length is known."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]], length: int) -> None:
        self._pieces = pieces
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()

    def __len__(self) -> int:
        return self._length


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
