"""A stand-in for Kaggle Models on the loopback interface: enough for kagglehub itself to run.

kagglehub has no setting for Kaggle's address but a few names; one of them is http://localhost. So
this is a proxy, by which the client is told to reach that host: `environment` says how.
"""

import http.server
import json
import re
import threading
import urllib.parse

USER, TOKEN, SIGNATURE = "emilutz", "KGAT_secret-of-the-test", "signature-of-the-test"


class Kaggle:
    """What the stand-in has received, and how it answers.

    Attributes:
      requests: (service's method, body) of each call, in their order.
      versions: {handle: [{path: content}, ...]}, the versions of each variation.
      bodies: the bodies of the calls that made these, in their order.
      faults: {method: [answer, ...]}: what the next calls of a method get in place of the right
        answer: a status, or a JSON object; for "PUT" also "cut", which drops the connection after
        half of the content.
    """

    def __init__(self):
        self.requests, self.bodies = [], []
        self.models, self.versions, self.blobs, self.faults = set(), {}, {}, {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.kaggle = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self):
        """The environment variables for a client, with a token."""
        proxy = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_API_TOKEN": TOKEN,
            "HTTP_PROXY": proxy,
            "http_proxy": proxy,
            "NO_PROXY": "",
            "no_proxy": "",
        }

    def called(self, method):
        return [body for name, body in self.requests if name == method]

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    # One method for each call, by Kaggle's name for it: takes and returns JSON.

    def GetModel(self, body):
        if f"{body['ownerSlug']}/{body['modelSlug']}" not in self.models:
            return 404
        return {"slug": body["modelSlug"]}

    def CreateModel(self, body):
        if body["ownerSlug"] != USER:
            return 403
        self.models.add(f"{body['ownerSlug']}/{body['slug']}")
        return {"id": 1}

    def StartBlobUpload(self, body):
        token = f"blob-{len(self.blobs)}"
        self.blobs[token] = {"name": body["name"], "size": body["contentLength"], "content": b""}
        return {
            "token": token,
            "createUrl": f"http://localhost/upload/{token}?signature={SIGNATURE}",
        }

    def CreateModelInstance(self, body):
        handle = self._handle({**body, **body["body"]})
        if handle in self.versions:
            return {"error": "it exists", "errorCode": 409}
        return self._add(handle, body["body"])

    def CreateModelInstanceVersion(self, body):
        return self._add(self._handle(body), body["body"])

    def GetModelInstance(self, body):
        return {"versionNumber": len(self.versions[self._handle(body)])}

    def ListModelInstanceVersionFiles(self, body):
        files = self._version(body)
        return {"files": [{"name": name, "size": len(files[name])} for name in files]}

    def DownloadModelInstanceVersion(self, body):
        return self._version(body)[body["path"]]

    def _handle(self, body):
        framework = {"MODEL_FRAMEWORK_TENSOR_FLOW_2": "tensorFlow2"}[body["framework"]]
        return "/".join((body["ownerSlug"], body["modelSlug"], framework, body["instanceSlug"]))

    def _version(self, body):
        return self.versions[self._handle(body)][body["versionNumber"] - 1]

    def _add(self, handle, body):
        files = {}

        def read(directory, beginning):
            for file in directory["files"]:
                blob = self.blobs[file["token"]]
                if len(blob["content"]) != blob["size"]:
                    raise ValueError(f"{blob['name']} was not uploaded completely")
                files[beginning + blob["name"]] = blob["content"]
            for folder in directory.get("directories", []):
                read(folder, f"{beginning}{folder['name']}/")

        try:
            read(body, "")
        except ValueError as error:
            return {"error": str(error), "errorCode": 400}
        self.versions.setdefault(handle, []).append(files)
        self.bodies.append(body)
        return {"id": 2}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def do_POST(self):
        kaggle = self.server.kaggle
        method = urllib.parse.urlsplit(self.path).path.rsplit("/", 1)[1]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kaggle.requests.append((method, body))
        faults = kaggle.faults.get(method)
        if faults:
            answer = faults.pop(0)
        elif self.headers["authorization"] != f"Bearer {TOKEN}":
            answer = 401
        else:
            answer = getattr(kaggle, method)(body)
        if isinstance(answer, int):
            answer, status = {"code": answer, "message": f"refused with {answer}"}, answer
        else:
            status = 200
        if isinstance(answer, bytes):
            self._answer(status, answer, {"content-type": "application/octet-stream"})
        else:
            content = json.dumps(answer).encode()
            self._answer(status, content, {"content-type": "application/json"})

    def do_PUT(self):
        kaggle = self.server.kaggle
        kaggle.requests.append(("PUT", self.headers["content-range"]))
        blob = kaggle.blobs[urllib.parse.urlsplit(self.path).path.rsplit("/", 1)[1]]
        size = int(self.headers["content-length"])
        asked = re.fullmatch(r"bytes \*/\d+", self.headers["content-range"])
        faults = kaggle.faults.get("PUT")
        fault = faults.pop(0) if faults and not asked else None
        if fault == "cut":
            blob["content"] += self.rfile.read(size // 2)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        content = self.rfile.read(size)
        if fault is not None:
            self._answer(fault, b"refused", {})
        elif asked and len(blob["content"]) < blob["size"]:
            received = len(blob["content"])
            self._answer(308, b"", {"range": f"bytes=0-{received - 1}"} if received else {})
        else:
            blob["content"] += content
            self._answer(200, b"", {})

    def _answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
