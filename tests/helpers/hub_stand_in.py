"""As much of Hugging Face's interface as its client needs to upload and download small files.

    python hub_stand_in.py FOLDER       # prints its port; repositories are FOLDER/user/name

Tokens are checked ("good"), every file travels within the commit, and there is one revision.
"""

import base64
import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(sys.argv[1])
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b"".join(self.chunks())
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != "Bearer good":
            return self.reply(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'user'}/{request['name']}"
            (FOLDER / name).mkdir(parents=True, exist_ok=True)
            return self.reply(200, {"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        repository, action = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                target = FOLDER / repository / entry["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(entry["value"]["content"]))
        return self.reply(
            200, {"commitUrl": f"http://{self.headers['Host']}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if not found:
            return self.reply(200, {"id": path, "sha": COMMIT, "siblings": []})
        file = FOLDER / found[1] / found[2]
        if not file.is_file():
            return self.reply(
                404,
                {"error": "not found"},
                {"X-Error-Code": ("EntryNotFound" if (FOLDER / found[1]).is_dir() else "RepoNotFound")},
            )
        content = file.read_bytes()
        tag = hashlib.sha1(content).hexdigest()
        return self.reply(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'})

    do_HEAD = do_GET

    def reply(self, status, content, headers=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def chunks(self):
        while length := int(self.rfile.readline(), 16):
            yield self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *args):
        print(self.command, self.path, file=sys.stderr)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
