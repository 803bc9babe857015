"""The static page over HTTP, and who may have it."""

import secrets
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

PAGE = Path(__file__).parent / 'page'
INDEX = 'index.html'
KINDS = {
    '.html': 'text/html; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.css': 'text/css; charset=utf-8',
    '.gif': 'image/gif',
    '.mp4': 'video/mp4',
}
# the page asks no other host for anything, and stands in no frame of another page
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'"
LOOPBACK = ('127.0.0.1', 'localhost', '::1')
SOCKET = '/play'


class Pages:
    """Answers requests for pages.

    Args:
        token: that the address must hold; '' for none, which is for this machine alone. films:
            folder of the films that were made.
    """

    def __init__(self, token: str, films: Path):
        self._token, self._films = token, films

    def answer(self, request: Request) -> Response | None:
        """The page, a file of it, a film, or why not; None lets a websocket come in."""
        url = urlsplit(request.path)
        if not self._local(request.headers):
            return plain(HTTPStatus.FORBIDDEN, 'this page is served under another name')
        name = url.path.removeprefix('/')
        if name != INDEX and '/' not in name and (PAGE / name).is_file():
            return file(PAGE / name)
        given = parse_qs(url.query).get('token', [''])[0]
        if self._token and not secrets.compare_digest(given.encode(), self._token.encode()):
            return plain(HTTPStatus.FORBIDDEN, 'open the address that the server printed')
        if url.path == SOCKET:
            return None
        if url.path == '/':
            return file(PAGE / INDEX)
        folder, _, film = name.partition('/')
        if folder == 'films' and film.startswith('film-') and '/' not in film:
            return file(self._films / film)
        return plain(HTTPStatus.NOT_FOUND, 'there is no such page')

    def _local(self, headers: Headers) -> bool:
        """Whether a request comes from a page of this server: a browser lets pages of others open
        websockets to anywhere, and they must not play here.
        """
        host, origin = headers.get('Host', ''), headers.get('Origin')
        if origin is not None and urlsplit(origin).netloc != host:
            return False
        return bool(self._token) or (urlsplit(f'//{host}').hostname or '') in LOOPBACK


def plain(status: HTTPStatus, text: str) -> Response:
    """A short page in plain text."""
    return respond(status, 'text/plain; charset=utf-8', f'{text}\n'.encode())


def file(path: Path) -> Response:
    """A file, or that there is none."""
    try:
        return respond(HTTPStatus.OK, KINDS[path.suffix], path.read_bytes())
    except (OSError, KeyError):
        return plain(HTTPStatus.NOT_FOUND, 'there is no such file')


def respond(status: HTTPStatus, kind: str, body: bytes) -> Response:
    """An answer to a request for a page."""
    headers = Headers(
        {
            'Content-Type': kind,
            'Content-Length': str(len(body)),
            'Content-Security-Policy': POLICY,
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',
            'Cache-Control': 'no-store',
            'Connection': 'close',
        }
    )
    return Response(status.value, status.phrase, headers, body)
