"""A small local server that speaks as much of the Hugging Face hub's API as huggingface_hub asks of it.

`GET /api/models/{repo}[/revision/{rev}]` (siblings with sizes), `GET /api/models/{repo}/tree/{commit}`, and
`HEAD`/`GET /{repo}/resolve/{rev}/{file}` with the hub's headers, ranges included; `GET /api/models?filter=` (the model
tree). Large files (the suffixes in `LARGE`) have their SHA-256 as etag, others git's hash, as on the hub. Each kind of
trouble that the tests are about is a field of `Repo`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin", ".pth")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository: its files; `status` answers every request for it with that error instead.

    Attributes:
        passing: statuses that the next requests get, one each, before all is well; (status, Retry-After) too.
        drops: for the next downloads of a file: after how many bytes of the body the connection breaks.
        bad: how many of the next downloads of a file have a wrong byte in them.
        pause: seconds after each 64 kB of a body.
        gated: 401 without a token, 403 with one.
        cdn: files are redirected to another host, as the hub does with large ones.
        deaf: ranges are ignored, and the whole file is sent.
        renamed: its name now, which the hub answers for the old one, too.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    code: str = ""
    revisions: tuple[str, ...] = ("main", COMMIT)
    tags: tuple[str, ...] = ()
    downloads: int = 0
    passing: list[int | tuple[int, float]] = field(default_factory=list)
    drops: dict[str, list[int]] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    pause: float = 0.0
    gated: bool = False
    cdn: bool = False
    deaf: bool = False
    renamed: str = ""


def etag(path: str, data: bytes) -> str:
    """What the hub gives as etag."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class HubServer:
    """Serve repositories on 127.0.0.1 while used as a context manager; `requests` lists what was asked."""

    def __init__(self, repos: dict[str, Repo]) -> None:  # noqa: C901 - the handler's small methods are counted as one
        self.repos = repos
        self.requests: list[str] = []
        self.ranges: list[str | None] = []  # the Range of each download
        self.sent: dict[str, int] = {}  # bytes of bodies, by file
        self.cdn_tokens: list[str | None] = []  # the Authorization that the other host got
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
                if parts == ["api", "models"]:
                    return self.tree()
                if parts[0] == "cdn":
                    hub.cdn_tokens.append(self.headers.get("Authorization"))
                    parts = parts[1:]
                    return self.file(hub.repos["/".join(parts[:2])], parts, body=body)
                api = parts[:2] == ["api", "models"]
                name = "/".join(parts[2:4] if api else parts[:2])
                repo = hub.repos.get(name)
                if repo is None:
                    self.fail(401, "RepoNotFound", "Invalid username or password.")
                elif repo.status != 200:
                    self.fail(repo.status, repo.code, "refused")
                elif repo.passing:
                    self.fail(repo.passing.pop(0), "", "wait")
                elif repo.gated:
                    self.fail(403 if self.headers.get("Authorization") else 401, "GatedRepo", "ask")
                elif api:
                    self.api(name, repo, parts[4:])
                elif repo.cdn and parts[3] in repo.revisions and "/".join(parts[4:]) in repo.files:
                    self.redirect(repo, parts)
                else:
                    self.file(repo, parts, body=body)
                return None

            def tree(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                wanted = set(asked.get("filter", []))
                found = [(name, repo) for name, repo in hub.repos.items() if wanted <= set(repo.tags)]
                found.sort(key=lambda item: -item[1].downloads)
                self.json(
                    [
                        {
                            "id": name,
                            "author": name.split("/")[0],
                            "downloads": repo.downloads,
                            "gated": "manual" if repo.gated else False,
                            "tags": list(repo.tags),
                            "siblings": [{"rfilename": path} for path in repo.files],
                        }
                        for name, repo in found
                    ]
                )

            def redirect(self, repo: Repo, parts: list[str]) -> None:
                path = "/".join(parts[4:])
                self.send_response(302)
                port = self.server.server_address[1]
                self.send_header("Location", f"http://localhost:{port}/cdn/{'/'.join(parts)}?X-Signature=sigsigsig")
                self.send_header("X-Linked-Etag", f'"{etag(path, repo.files[path])}"')
                self.send_header("X-Linked-Size", str(len(repo.files[path])))
                # As the hub's own storage says of a file that its client could fetch another way, too.
                self.send_header("X-Xet-Hash", hashlib.sha256(path.encode()).hexdigest())
                self.send_header("X-Xet-Refresh-Route", f"http://127.0.0.1:{port}/api/none")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()

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
                    facts = {"id": repo.renamed or name, "sha": COMMIT, "siblings": siblings, "tags": list(repo.tags)}
                    self.json({**facts, "private": False, "gated": False})

            def file(self, repo: Repo, parts: list[str], *, body: bool) -> None:
                revision, path = parts[3], "/".join(parts[4:])
                if revision not in repo.revisions:
                    return self.fail(404, "RevisionNotFound", "Invalid rev id")
                data = repo.files.get(path)
                if data is None:
                    return self.fail(404, "EntryNotFound", "Entry not found")
                start, end = 0, len(data) - 1
                wanted = None if repo.deaf else self.headers.get("Range")
                if wanted:
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    start, end = int(first), min(int(last or end), end)
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
                self.send_header("Content-Length", str(end + 1 - start))
                self.send_header("ETag", f'"{etag(path, data)}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if body:
                    hub.ranges.append(self.headers.get("Range"))
                    self.body(repo, path, bytearray(data[start : end + 1]))
                return None

            def body(self, repo: Repo, path: str, data: bytearray) -> None:
                if repo.bad.get(path):
                    repo.bad[path] -= 1
                    data[len(data) // 2] ^= 255
                drops = repo.drops.get(path)
                limit = drops.pop(0) if drops else len(data)
                for at in range(0, min(limit, len(data)), 65536):
                    piece = data[at : min(at + 65536, limit)]
                    try:
                        self.wfile.write(piece)
                        self.wfile.flush()
                    except OSError:  # the client went away
                        self.close_connection = True
                        return
                    hub.sent[path] = hub.sent.get(path, 0) + len(piece)
                    time.sleep(repo.pause)
                if limit < len(data):
                    self.close_connection = True

            def json(self, value: object) -> None:
                text = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def fail(self, status: int | tuple[int, float], code: str, message: str) -> None:
                status, wait = status if isinstance(status, tuple) else (status, None)
                self.send_response(status)
                if wait is not None:
                    self.send_header("Retry-After", str(wait))
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
