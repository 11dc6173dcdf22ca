"""A stand-in for Hugging Face on the loopback interface: enough for huggingface_hub itself to run.

Large files go by git's LFS protocol, as they do for whoever has no hf_xet.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

OWNER, TOKEN, SIGNATURE = "emilutz", "hf_secretOfTheTest", "signature-of-the-test"

_LFS = (".data-00000-of-00001", ".png")


class HuggingFace:
    """What the stand-in has received, and how it answers.

    Attributes:
      requests: (method, path) of each request, in their order.
      repositories: {OWNER/NAME: {"private": bool, "commits": [{"title", "description", "files"}]}},
        "files" by path.
      faults: {beginning of "METHOD path": [status or "cut", ...]}: what the next such requests get.
    """

    def __init__(self):
        self.requests, self.repositories, self.objects, self.faults = [], {}, {}, {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.huggingface = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self):
        """The environment variables for a client, with a token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def files(self, name):
        """The files of a repository as of its last commit."""
        commits = self.repositories[name]["commits"]
        return commits[-1]["files"] if commits else {}

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    # Each takes the body of a request and the parts of its path; returns JSON, or a status.

    def create(self, body):
        owner = body.get("organization", OWNER)
        name = f"{owner}/{body['name']}"
        if owner != OWNER:
            return 403
        if name in self.repositories:
            return {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        # Newer clients send a visibility.
        private = bool(body.get("private")) or body.get("visibility") == "private"
        self.repositories[name] = {"private": private, "commits": []}
        return {"url": f"{self.url}/{name}", "name": name}

    def preupload(self, body, name):
        files = []
        for file in body["files"]:
            mode = "lfs" if file["path"].endswith(_LFS) else "regular"
            known = self.files(name).get(file["path"])
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": mode,
                    "shouldIgnore": False,
                    "oid": None if known is None else _oid(known, mode),
                }
            )
        return {"files": files}

    def batch(self, body, name):
        found = []
        for wanted in body["objects"]:
            href = f"{self.url}/lfs/{wanted['oid']}?signature={SIGNATURE}"
            has = wanted["oid"] in self.objects
            found.append(wanted if has else {**wanted, "actions": {"upload": {"href": href}}})
        return {"transfer": "basic", "objects": found}

    def commit(self, body, name):
        files, header = dict(self.files(name)), None
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                header = value
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commits = self.repositories[name]["commits"]
        commits.append(
            {"title": header["summary"], "description": header["description"], "files": files}
        )
        number = f"{len(commits):040x}"
        return {"commitUrl": f"{self.url}/{name}/commit/{number}", "commitOid": number}

    def tree(self, name):
        return [
            {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": _oid(content, "regular"),
            }
            for path, content in self.files(name).items()
        ]

    def revision(self, name):
        number = f"{len(self.repositories[name]['commits']):040x}"
        siblings = [{"rfilename": path} for path in self.files(name)]
        return {"id": name, "sha": number, "siblings": siblings, "private": False, "tags": []}


def _oid(content, mode):
    """By what git knows a file's content, or its LFS."""
    if mode == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ROUTES = (
    (r"POST /api/repos/create", "create"),
    (r"POST /api/models/(\w+/[^/]+)/preupload/main", "preupload"),
    (r"POST /(\w+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    (r"POST /api/models/(\w+/[^/]+)/commit/main", "commit"),
    (r"GET /api/models/(\w+/[^/]+)/tree/\w+", "tree"),
    (r"GET /api/models/(\w+/[^/]+)/revision/\w+", "revision"),
)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def _do(self):
        hub = self.server.huggingface
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        hub.requests.append((self.command, path))
        body = self._body()
        fault = next((f for start, f in hub.faults.items() if asked.startswith(start) and f), None)
        fault = fault.pop(0) if fault else None
        if fault == "cut":
            self.close_connection = True
            self.connection.shutdown(2)
            return None
        if fault:
            return self._answer(fault, {"error": f"refused with {fault}"})
        if match := re.fullmatch(r"PUT /lfs/(\w+)", asked):
            hub.objects[match[1]] = body
            return self._answer(200, b"")
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if match := re.fullmatch(r"(?:GET|HEAD) /(\w+/[^/]+)/resolve/(\w+)/(.+)", asked):
            content = hub.files(match[1]).get(match[3])
            number = hub.revision(match[1])["sha"]
            if content is None:
                return self._answer(404, b"", {"x-error-code": "EntryNotFound"})
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self._answer(200, content, {"etag": tag, "x-repo-commit": number})
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, asked):
                if match.groups() and match[1] not in hub.repositories:
                    return self._answer(404, b"", {"x-error-code": "RepoNotFound"})
                takes_body = [] if self.command == "GET" else [body]
                answer = getattr(hub, method)(*takes_body, *match.groups())
                if isinstance(answer, int):
                    return self._answer(answer, {"error": f"refused with {answer}"})
                return self._answer(409 if "error" in answer else 200, answer)
        return self._answer(404, {"error": f"{asked} is not played here"})

    do_GET = do_HEAD = do_POST = do_PUT = _do

    def _body(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        return json.loads(body) if "json" in self._type() and body else body

    def _type(self):
        kind = self.headers.get("content-type", "")
        return "" if "ndjson" in kind else kind

    def _answer(self, status, answer, headers=None):
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        headers = {"content-type": kind, "content-length": str(len(content)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
