"""Stand-ins for Kaggle Models and Hugging Face, enough for their own clients to run.

They listen on the loopback interface. kagglehub knows Kaggle by fixed names only, one of which is
http://localhost, so its stand-in is a proxy that plays this host. Large files go to Hugging Face by
git's LFS protocol, as without hf_xet.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

OWNER, TOKEN, SIGNATURE = "emilutz", "hf_secretOfTheTest", "signature-of-the-test"


class Host:
    """What a stand-in has received: `requests` as "METHOD PATH", and by place what was `sent`.

    `sent` is {place: [{path: content} of each version]}, `facts` what came with these versions.
    `faults` is {part of "METHOD PATH": [status or "cut", ...]}: what the next such requests get in
    place of the right answer; "cut" breaks the connection.
    """

    def __init__(self):
        self.requests, self.faults, self.sent, self.facts, self.blobs = [], {}, {}, [], {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.host = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Kaggle(Host):
    """Beside what all have, `usages`: by place the last description."""

    def __init__(self):
        super().__init__()
        self.usages = {}

    @property
    def environment(self):
        proxies = {"HTTP_PROXY": self.url, "http_proxy": self.url, "NO_PROXY": "", "no_proxy": ""}
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": TOKEN, **proxies}

    def answer(self, command, path, body, headers):
        name = path.rpartition("/")[2]
        if command == "PUT":
            if headers["content-range"].startswith("bytes *"):  # How much is there?
                return 308, b""
            self.blobs[name] = self.blobs[name][0], body
            return 200, b""
        if headers["authorization"] != f"Bearer {TOKEN}":
            return 401, {"code": 401, "message": "refused with 401"}
        return getattr(self, name)(json.loads(body))

    def GetModel(self, body):
        known = any(p.startswith(f"{body['ownerSlug']}/{body['modelSlug']}/") for p in self.sent)
        return (200, {"slug": body["modelSlug"]}) if known else (404, {"code": 404})

    def CreateModel(self, body):
        return (200, {"id": 1}) if body["ownerSlug"] == OWNER else (403, {"code": 403})

    def StartBlobUpload(self, body):
        token = f"blob-{len(self.blobs)}"
        self.blobs[token] = body["name"], b""
        url = f"http://localhost/upload/{token}?signature={SIGNATURE}"
        return 200, {"token": token, "createUrl": url}

    def CreateModelInstance(self, body):
        place = _place({**body, **body["body"]})
        if place in self.sent:
            return 200, {"error": "it exists", "errorCode": 409}
        return self._add(place, body["body"])

    def CreateModelInstanceVersion(self, body):
        return self._add(_place(body), body["body"])

    def UpdateModelInstance(self, body):
        assert body["updateMask"] == "overview,usage,licenseName,fineTunable"
        self.usages[_place(body)] = body
        return 200, {"id": 2}

    def GetModelInstance(self, body):
        return 200, {"versionNumber": len(self.sent[_place(body)])}

    def ListModelInstanceVersionFiles(self, body):
        files = self.sent[_place(body)][body["versionNumber"] - 1]
        return 200, {"files": [{"name": name, "size": len(files[name])} for name in files]}

    def DownloadModelInstanceVersion(self, body):
        return 200, self.sent[_place(body)][body["versionNumber"] - 1][body["path"]]

    def _add(self, place, body):
        files = dict(self.blobs[file["token"]] for file in body["files"])
        for folder in body.get("directories", []):
            for file in folder["files"]:
                name, content = self.blobs[file["token"]]
                files[f"{folder['name']}/{name}"] = content
        if not all(files.values()):
            return 200, {"error": "a file was not uploaded completely", "errorCode": 400}
        self.sent.setdefault(place, []).append(files)
        self.facts.append(body)
        return 200, {"id": 2}


_FRAMEWORKS = {"TENSOR_FLOW_2": "tensorFlow2", "KERAS": "keras", "TF_LITE": "tfLite"}


def _place(body):
    framework = _FRAMEWORKS[body["framework"].removeprefix("MODEL_FRAMEWORK_")]
    return f"{body['ownerSlug']}/{body['modelSlug']}/{framework}/{body['instanceSlug']}"


class HuggingFace(Host):
    @property
    def environment(self):
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}

    def files(self, place):
        versions = self.sent[place]
        return versions[-1] if versions else {}

    def answer(self, command, path, body, headers):
        asked = f"{command} {path}"
        if match := re.fullmatch(r"PUT /lfs/(\w+)", asked):
            self.blobs[match[1]] = body
            return 200, b""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if headers["authorization"] != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.removeprefix("/api/models/") in self.sent:
            return 200, {"id": path.removeprefix("/api/models/"), "private": self.private}
        if match := re.fullmatch(r"(?:GET|HEAD) /(\w+/[^/]+)/resolve/\w+/(.+)", asked):
            content = self.files(match[1]).get(match[2])
            if content is None:
                return 404, b"", {"x-error-code": "EntryNotFound"}
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            return 200, content, {"etag": tag, "x-repo-commit": self._number(match[1])}
        pattern = r"/(?:api/models/)?(\w+/[^/]+?)(?:\.git/info/lfs/objects)?/(\w+)(?:/\w+)?"
        match = re.fullmatch(pattern, path)
        if not match or match[1] not in self.sent:
            return 404, b"", {"x-error-code": "RepoNotFound"}
        return 200, getattr(self, match[2])(body, match[1])

    def create(self, body):
        if body.get("organization", OWNER) != OWNER:
            return 403, {"error": "refused with 403"}
        place = f"{OWNER}/{body['name']}"
        if place in self.sent:
            return 409, {"error": "it exists", "url": f"{self.url}/{place}"}
        self.sent[place] = []
        self.private = bool(body.get("private")) or body.get("visibility") == "private"
        return 200, {"url": f"{self.url}/{place}", "name": place}

    def preupload(self, body, place):
        found = []
        for path in (file["path"] for file in json.loads(body)["files"]):
            mode = "lfs" if _is_large(path) else "regular"
            oid = _oid(self.files(place).get(path), path)
            found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": found}

    def batch(self, body, place):
        found = []
        for wanted in json.loads(body)["objects"]:
            href = f"{self.url}/lfs/{wanted['oid']}?signature={SIGNATURE}"
            has = wanted["oid"] in self.blobs
            found.append(wanted if has else {**wanted, "actions": {"upload": {"href": href}}})
        return {"transfer": "basic", "objects": found}

    def commit(self, body, place):
        files = dict(self.files(place))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.facts.append(value)
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            else:
                del files[value["path"]]
        self.sent[place].append(files)
        number = self._number(place)
        return {"commitUrl": f"{self.url}/{place}/commit/{number}", "commitOid": number}

    def tree(self, body, place):
        return [
            {"type": "file", "path": path, "size": len(content), "oid": _oid(content, "")}
            for path, content in self.files(place).items()
        ]

    def revision(self, body, place):
        siblings = [{"rfilename": path} for path in self.files(place)]
        return {"id": place, "sha": self._number(place), "siblings": siblings, "tags": []}

    def _number(self, place):
        return f"{len(self.sent[place]):040x}"


def _is_large(path):
    return path.endswith((".h5", ".safetensors", ".onnx", ".tflite")) or "variables.data" in path


def _oid(content, path):
    """What git, or its LFS, knows a file's content by."""
    if content is None:
        return None
    if _is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def _do(self):
        host = self.server.host
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        host.requests.append(asked)
        body = self._body()
        fault = next((f.pop(0) for part, f in host.faults.items() if part in asked and f), None)
        if fault == "cut":
            self.close_connection = True
            self.connection.shutdown(2)
            return
        refused = (fault, {"error": f"refused with {fault}"}) if fault else None
        answer = refused or host.answer(self.command, path, body, self.headers)
        status, content, headers = (*answer, {})[:3]
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"content-type": "application/json", **headers}
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _do

    def _body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body
