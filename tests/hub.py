"""A stand-in for the Hugging Face hub: repositories of files in memory, behind the few addresses
that huggingface_hub asks for.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = '1' * 40


@contextmanager
def stand_in():
    """A running hub: yields its address, and name of a repository -> path -> content."""
    repositories = {}
    handler = type('Bound', (Handler,), {'repositories': repositories})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listed(path, content):
    """A file as the tree of a repository names it."""
    digest = hashlib.sha1(content).hexdigest()
    return {'type': 'file', 'path': path, 'size': len(content), 'oid': digest}


class Handler(BaseHTTPRequestHandler):
    """What is asked of the hub when a folder is uploaded, and a snapshot downloaded."""

    repositories: dict
    protocol_version = 'HTTP/1.1'
    here = property(lambda self: f'http://127.0.0.1:{self.server.server_port}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        path = self.path.partition('?')[0]
        if path == '/api/repos/create':
            asked = json.loads(body)
            name = '/'.join(filter(None, (asked.get('organization'), asked['name'])))
            self.repositories.setdefault(name, {})
            return self.answer({'url': f'{self.here}/{name}'})
        if path == '/api/validate-yaml':
            return self.answer({'errors': [], 'warnings': []})
        name, action = path.removeprefix('/api/models/').rsplit('/', 2)[:2]
        if action == 'preupload':
            paths = [file['path'] for file in json.loads(body)['files']]
            plain = {'uploadMode': 'regular', 'shouldIgnore': False}
            return self.answer({'files': [{'path': path} | plain for path in paths]})
        assert action == 'commit', self.path
        for line in map(json.loads, body.splitlines()):
            if line['key'] == 'file':
                value = line['value']
                self.repositories[name][value['path']] = base64.b64decode(value['content'])
        self.answer({'commitUrl': f'{self.here}/{name}/commit/{REVISION}', 'commitOid': REVISION})

    def do_GET(self):
        path = self.path.partition('?')[0]
        if path.startswith('/api/models/'):
            name = '/'.join(path.removeprefix('/api/models/').split('/')[:2])
            files = self.repositories.get(name)
            if files is None:
                return self.refuse('RepoNotFound')
            if '/tree/' in path:
                return self.answer([listed(path, content) for path, content in files.items()])
            siblings = [{'rfilename': path} for path in sorted(files)]
            return self.answer({'_id': '1', 'id': name, 'sha': REVISION, 'siblings': siblings})
        name, _, file = path[1:].partition('/resolve/')
        content = self.repositories[name].get(file.partition('/')[2])
        if content is None:
            return self.refuse('EntryNotFound')
        digest = hashlib.sha1(content).hexdigest()
        self.send_response(200)
        self.send_header('X-Repo-Commit', REVISION)
        self.send_header('ETag', f'"{digest}"')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(content)

    do_HEAD = do_GET

    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def refuse(self, code):
        self.send_response(404)
        self.send_header('X-Error-Code', code)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *_):
        pass
