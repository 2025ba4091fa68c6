"""A small local server that speaks as much of the Hugging Face hub's API as huggingface_hub asks of it.

`GET /api/models/{repo}[/revision/{rev}]` (siblings with sizes), `GET /api/models/{repo}/tree/{commit}`, and
`HEAD`/`GET /{repo}/resolve/{rev}/{file}` with the hub's headers, ranges included.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository: its files; `status` answers every request for it with that error instead."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    code: str = ""
    revisions: tuple[str, ...] = ("main", COMMIT)


class HubServer:
    """Serve repositories on 127.0.0.1 while used as a context manager; `requests` lists what was asked."""

    def __init__(self, repos: dict[str, Repo]) -> None:  # noqa: C901 - the handler's small methods are counted as one
        self.repos = repos
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer(body=True)

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def answer(self, *, body: bool) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
                api = parts[:2] == ["api", "models"]
                name = "/".join(parts[2:4] if api else parts[:2])
                repo = hub.repos.get(name)
                if repo is None:
                    self.fail(401, "RepoNotFound", "Invalid username or password.")
                elif repo.status != 200:
                    self.fail(repo.status, repo.code, "refused")
                elif api:
                    self.api(name, repo, parts[4:])
                else:
                    self.file(repo, parts[3], "/".join(parts[4:]), body=body)

            def api(self, name: str, repo: Repo, rest: list[str]) -> None:
                revision = rest[1] if len(rest) > 1 else "main"
                if revision not in repo.revisions:
                    self.fail(404, "RevisionNotFound", "Invalid rev id")
                elif rest[:1] == ["tree"]:
                    tree = [
                        {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for path, data in repo.files.items()
                    ]
                    self.json(tree)
                else:
                    siblings = [{"rfilename": path, "size": len(data)} for path, data in repo.files.items()]
                    self.json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

            def file(self, repo: Repo, revision: str, path: str, *, body: bool) -> None:
                if revision not in repo.revisions:
                    return self.fail(404, "RevisionNotFound", "Invalid rev id")
                data = repo.files.get(path)
                if data is None:
                    return self.fail(404, "EntryNotFound", "Entry not found")
                start = 0
                wanted = self.headers.get("Range")
                if wanted:
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if body:
                    self.wfile.write(data[start:])
                return None

            def json(self, value: object) -> None:
                text = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def fail(self, status: int, code: str, message: str) -> None:
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", message)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


def folder_files(folder: Path) -> dict[str, bytes]:
    """A folder's files, to serve."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
