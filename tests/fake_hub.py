"""A Hugging Face hub on 127.0.0.1: enough of its HTTP API to create a repository, commit small files and download them."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, bytes]] = {}  # owner/name -> path -> content
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.downloads: list[str] = []  # paths of the files that were fetched
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def commit(self, name: str) -> str:
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repositories[name].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            request = json.loads(body)
            name = "/".join(filter(None, [request.get("organization"), request["name"]]))
            self.server.repositories.setdefault(name, {})
            return self.answer({"url": f"{self.server.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self.answer({"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.server.commit(name)
        return self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def do_GET(self):  # noqa: N802
        self.server.requests.append(self.path)
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.server.repositories:
            return self.answer({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
        files, commit = self.server.repositories[name], self.server.commit(name)
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else commit
        if name in self.server.gated:
            return self.answer({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        if revision not in ("main", commit):
            return self.answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        if parts[0] == "api" and "tree" in parts:
            tree = [{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()]  # fmt: skip
            return self.answer(tree)
        if parts[0] == "api":
            return self.answer({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})
        path = "/".join(parts[4:])
        if path not in files:
            return self.answer({"error": "no file"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if self.command == "GET":
            self.server.downloads.append(path)
        return self.answer(files[path], ETag=f'"{hashlib.sha1(files[path]).hexdigest()}"', X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815
