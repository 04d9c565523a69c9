"""A hub on the loopback address that speaks the real one's protocol, with a second server for large files, as it has.

It notes every request, and has the faults that a test asks for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/.*)?")
_PREUPLOAD = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)")
_COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)")
_BRANCH = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)")
_BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class Request:
    """One that came: `server` is "hub" or "cdn"; `sent` what the answer's body has."""

    server: str
    method: str
    path: str
    range: str | None
    token: str | None
    at: float
    sent: int = 0


@dataclass
class Repo:
    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    versions: int = 0

    @property
    def commit(self) -> str:
        content = repr((self.versions, sorted((name, sha256(data)) for name, data in self.files.items())))
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Fault:
    """What happens to requests for the content of a large file.

    Attributes:
        cut: the connection ends after so many bytes; `times` times.
        status: in the place of the file.
        hold: waited for before the first byte.
        rate: bytes a second.
        size: what the hub says the file's size is.
    """

    cut: int | None = None
    times: int = 10**9
    status: int | None = None
    hold: Callable[[], bool] | None = None
    rate: float | None = None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def etag(name: str, data: bytes) -> str:
    """As the hub has it: of large files the SHA-256, of the others git's name."""
    return sha256(data) if name.endswith(LARGE) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class FakeHub:
    """The hub's state; `running` serves it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.branches: list[str] = []
        self.address = self.cdn = ""
        self.lock = threading.Lock()

    def add(self, repo: str, folder: Path, **settings: Any) -> Repo:
        """Publish a folder."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repos[repo] = Repo(files, **settings)
        return self.repos[repo]

    def content(self, sha: str) -> tuple[str, bytes]:
        """A large file's name and bytes."""
        for repo in self.repos.values():
            for name, data in repo.files.items():
                if name.endswith(LARGE) and sha256(data) == sha:
                    return name, data
        return "", self.large.get(sha, b"")

    def fetched(self) -> list[str]:
        """Names of large files of which more than a header was asked for, in order."""
        return [
            each.path.rpartition("?")[2]
            for each in self.requests
            if each.server == "cdn" and each.method == "GET" and (each.range is None or each.range.endswith("-"))
        ]

    def asked(self, server: str = "hub") -> list[str]:
        return [f"{each.method} {each.path}" for each in self.requests if each.server == server]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else head and body of an answer are 40 ms apart.
    disable_nagle_algorithm = True
    hub: FakeHub
    role: str

    def log_message(self, *args: object) -> None:
        pass

    def _note(self) -> Request:
        request = Request(
            self.role,
            self.command,
            self.path if self.role == "cdn" else urlsplit(self.path).path,
            self.headers.get("Range"),
            self.headers.get("Authorization"),
            time.monotonic(),
        )
        with self.hub.lock:
            self.hub.requests.append(request)
        return request

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str = "") -> None:
        self.answer(status, b'{"error": "no"}', **({"X_Error_Code": code} if code else {}))

    def find(self, match: re.Match[str]) -> Repo | None:
        """The repository that is asked for, if it may be seen; else the refusal is sent."""
        repo = self.hub.repos.get(match["repo"])
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            self.refuse(401, "RepoNotFound")
            return None
        revision = match["revision"]
        if revision not in (None, "main", repo.commit) and revision not in self.hub.branches:
            self.refuse(404, "RevisionNotFound")
            return None
        return repo

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


class _Hub(_Handler):
    role = "hub"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._note()
        path = unquote(urlsplit(self.path).path)
        if match := _RESOLVE.fullmatch(path):
            self._resolve(match)
        elif match := _TREE.fullmatch(path):
            if repo := self.find(match):
                self.reply([_tree(name, data) for name, data in repo.files.items()])
        elif match := _INFO.fullmatch(path):
            if repo := self.find(match):
                siblings = [_sibling(name, data) for name, data in repo.files.items()]
                known = {"id": match["repo"], "modelId": match["repo"], "sha": repo.commit, "private": repo.private}
                self.reply({**known, "siblings": siblings})
        else:
            self.refuse(404)

    def _resolve(self, match: re.Match[str]) -> None:
        repo = self.find(match)
        if repo is None:
            return
        name = match["name"]
        if repo.gated and not self.headers.get("Authorization"):
            self.refuse(403, "GatedRepo")
        elif name not in repo.files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=repo.commit)
        elif name.endswith(LARGE):
            data = repo.files[name]
            self.answer(
                302,
                Location=f"{self.hub.cdn}/{sha256(data)}?{name}",
                X_Repo_Commit=repo.commit,
                X_Linked_Etag=f'"{sha256(data)}"',
                X_Linked_Size=str(len(data)),
            )
        else:
            data = repo.files[name]
            self.answer(200, data, X_Repo_Commit=repo.commit, ETag=f'"{etag(name, data)}"')

    def do_POST(self) -> None:
        self._note()
        path, content = unquote(urlsplit(self.path).path), self.body()
        if path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif not self.headers.get("Authorization"):
            self.refuse(401)
        elif path == "/api/repos/create":
            asked = json.loads(content)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            status = 409 if repo in self.hub.repos else 200
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repos.setdefault(repo, Repo({".gitattributes": b""}, private=private))
            self.answer(status, json.dumps({"url": f"{self.hub.address}/{repo}"}).encode())
        elif match := _BRANCH.fullmatch(path):
            self.hub.branches.append(match["revision"])
            self.reply({})
        elif _PREUPLOAD.fullmatch(path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self.reply({"files": files})
        elif _BATCH.fullmatch(path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.cdn}/{each['oid']}"}}}
                for each in json.loads(content)["objects"]
            ]
            self.reply({"transfer": "basic", "objects": objects})
        elif match := _COMMIT.fullmatch(path):
            repo = self.hub.repos[match["repo"]]
            _commit(self.hub, repo, [json.loads(line) for line in content.splitlines() if line.strip()])
            self.reply(
                {"success": True, "commitOid": repo.commit, "commitUrl": f"{self.hub.address}/{match['repo']}/commit/x"}
            )
        else:
            self.refuse(404)


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 134}} if name.endswith(LARGE) else {}
    return {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest(), **large} | (
        {} if large else {"blobId": etag(name, data)}
    )


def _tree(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _commit(hub: FakeHub, repo: Repo, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            repo.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            repo.files[value["path"]] = hub.large[value["oid"]]
        elif line["key"] == "deletedFile":
            del repo.files[value["path"]]
    repo.versions += 1


class _Cdn(_Handler):
    role = "cdn"

    def do_PUT(self) -> None:
        self._note()
        data = self.body()
        self.hub.large[sha256(data)] = data
        self.answer(200, ETag='"x"')

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        request = self._note()
        name, data = self.hub.content(urlsplit(self.path).path.strip("/"))
        begin, end = 0, len(data)
        if request.range:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range).groups()  # type: ignore[union-attr]
            begin, end = int(first), min(int(last) + 1 if last else end, end)
        whole = not request.range or request.range.endswith("-")
        fault = self.hub.faults.get(name, Fault()) if whole else Fault()
        if fault.hold and not fault.hold():
            self.refuse(500)
            return
        if fault.status:
            self.refuse(fault.status)
            return
        self.send_response(206 if request.range else 200)
        self.send_header("Content-Length", str(end - begin))
        if request.range:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut is not None and fault.times > 0:
            fault.times -= 1
            end = min(end, begin + fault.cut)
            self.close_connection = True
        self._send(request, data[begin:end], fault.rate)
        if self.close_connection:
            with suppress(OSError):
                self.connection.shutdown(2)

    def _send(self, request: Request, data: bytes, rate: float | None) -> None:
        step = len(data) or 1 if rate is None else max(1, int(rate / 50))
        try:
            for at in range(0, len(data), step):
                self.wfile.write(data[at : at + step])
                request.sent += step
                if rate is not None:
                    time.sleep(1 / 50)
        except OSError:  # the client went away
            self.close_connection = True


@contextmanager
def running(repos: Mapping[str, Path] | None = None) -> Iterator[FakeHub]:
    """A hub that serves, and its server for large files."""
    hub = FakeHub()
    for repo, folder in (repos or {}).items():
        hub.add(repo, folder)
    servers = []
    for kind in (_Hub, _Cdn):
        handler = type(kind.__name__, (kind,), {"hub": hub})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
