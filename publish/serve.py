"""Serves a hub's tree: archives to `tensorflow_hub`, pages to people.

    python -m publish.serve --root=dist/hub --port=8000

The same URL, `/PUBLISHER/NAME/VERSION`, gives the archive to `hub.KerasLayer`, which asks for
`?tf-hub-format=compressed`, and the model's page to a browser. That is TensorFlow Hub's protocol,
https://www.tensorflow.org/hub/hosting. Without `/VERSION` it is the newest version.
"""

import functools
import logging
import os
import pathlib
import re
import socket

import uvicorn
from absl import flags
from starlette import applications, requests, responses, routing, staticfiles

from export import cli, hub_page, templates
from export.artifact import Artifact
from publish import markdown, tree
from unpooling.errors import UserError, one_line

__all__ = ["application"]

FLAGS = flags.FLAGS

_HERE = pathlib.Path(__file__).parent
_TYPES = {".gz": "application/gzip", ".json": "application/json", ".png": "image/png"}
_HEADERS = {
    # Pages run no scripts and send nothing.
    "content-security-policy": "default-src 'none'; img-src 'self' https:; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # A version may have been replaced.
}


def application(root: str) -> applications.Starlette:
    """Returns the ASGI application that serves the tree in `root`.

    The tree is read again whenever one of its pages has changed, so new models appear without a
    restart. Only paths listed in the tree are served: no path is built from a URL.

    Args:
      root: a tree that `publish.tree` made.
    """
    environment = templates.environment(_HERE / "templates", html=True)
    environment.filters["markdown"] = markdown.render_line

    @functools.lru_cache(maxsize=1)
    def read(state: tuple) -> _Table:
        return _Table(root)

    # Not `async`: Starlette runs it in a thread, so that reading files blocks no other request.
    def serve(request: requests.Request) -> responses.Response:
        pages = sorted(pathlib.Path(root, tree.DOCS).rglob("*.md"))
        table = read(tuple((str(page), _modified(page)) for page in pages))
        response = _respond(request, table, environment)
        response.headers.update(_HEADERS)
        return response

    static = staticfiles.StaticFiles(directory=_HERE / "static")
    return applications.Starlette(
        routes=[routing.Mount("/static", static), routing.Route("/{path:path}", serve)]
    )


def _modified(page):
    """When a page was written, in ns; None for a link to nowhere, or one that has just gone."""
    try:
        return page.stat().st_mtime_ns
    except OSError:
        return None


class _Table:
    """What a tree has, by the path of its URL.

    Attributes:
      models: artifacts; where the path has no version, the newest.
      names: those paths without a version.
      files: (artifact, name of one of its files).
      pages: (text, head) of publishers and collections.
    """

    def __init__(self, root: str):
        self.models, self.files, self.pages = {}, {}, {}
        for found in tree.artifacts(root):
            name = f"{found.page.publisher}/{found.page.name}"
            self.models[name] = self.models[f"{name}/{found.page.version}"] = found
            folder = tree.files_path(found.asset_path)
            self.files.update({f"{folder}/{file}": (found, file) for file in found.spec.files})
        self.names = [name for name in self.models if name.count("/") == 1]
        docs = pathlib.Path(root, tree.DOCS)
        for path in [*docs.glob("*/*.md"), *docs.glob("*/collections/*/*.md")]:
            try:
                content = path.read_text(encoding="utf-8")
                page = hub_page.read(content)
            except (UserError, OSError, UnicodeDecodeError) as error:
                logging.warning("%s is left out: %s", path, error)
                continue
            url = f"{page.publisher}/collection/{page.name}" if page.name else page.publisher
            self.pages[url] = (content, page)


def _respond(request, table, environment):
    path = request.path_params["path"].strip("/")
    wanted = request.query_params.get("tf-hub-format")
    if path in table.files and wanted in (None, "compressed"):  # The client always adds it.
        return _file(*table.files[path])
    there = ", ".join(f"/{name}" for name in table.names) or "none yet"
    missing = f"There is nothing at /{one_line(path)}. The models are: {there}."
    if wanted is not None:  # TensorFlow Hub's protocol.
        found = table.models.get(path)
        if found is None:
            return responses.PlainTextResponse(f"{missing}\n", 404)
        if wanted == "compressed":
            return _file(found, found.spec.archive_name)
        if wanted == "uncompressed":
            # A bucket's gs://, where the publisher has to unpack it, is all that the client takes.
            bucket = r"^https?://storage\.googleapis\.com/"
            location = re.sub(bucket, "gs://", found.asset_path.removesuffix(".tar.gz"))
            return responses.PlainTextResponse(location, 303, {"location": location})
        reason = f"tf-hub-format must be compressed or uncompressed. Received: {wanted}."
        return responses.PlainTextResponse(f"{one_line(reason)}\n", 400)

    status, template, values = 200, "page.html", {"base": request.base_url}
    if path in table.models:
        found = table.models[path]
        content = pathlib.Path(found.path("md")).read_text(encoding="utf-8")
        files_url = f"/{tree.files_path(found.asset_path)}"
        body = markdown.render(content, {os.path.dirname(found.asset_path): files_url})
        name = f"{found.page.publisher}/{found.page.name}/"
        versions = [n.removeprefix(name) for n in table.models if n.startswith(name)]
        values |= {"page": found.page, "body": body, "module": found}
        values |= {"files_url": files_url, "versions": versions}
    elif path in table.pages:
        content, head = table.pages[path]
        values |= {"page": head, "body": markdown.render(content, {}), "module": None}
    else:
        status, template = 200 if path == "" else 404, "index.html"
        values |= {"missing": missing if path else "", "pages": table.pages}
        values["modules"] = [table.models[name] for name in table.names]
    return responses.HTMLResponse(environment.get_template(template).render(values), status)


def _file(found: Artifact, name: str) -> responses.FileResponse:
    """A file, an archive with its SHA-256 as ETag; Starlette handles ranges and HEAD."""
    is_archive = name == found.spec.archive_name
    return responses.FileResponse(
        os.path.join(found.folder, name),
        media_type=_TYPES.get(os.path.splitext(name)[1], "text/plain; charset=utf-8"),
        headers={"etag": f'"{found.manifest["archive"]["sha256"]}"'} if is_archive else None,
    )


def main() -> None:
    if not os.path.isdir(os.path.join(FLAGS.root, tree.DOCS)):
        raise UserError(
            f"{FLAGS.root} is not a hub's tree, it has no {tree.DOCS}: make one with "
            "`python -m publish.tree`, or pass another --root."
        )
    count = len(tree.artifacts(FLAGS.root))
    try:
        listener = socket.create_server((FLAGS.host, FLAGS.port), reuse_port=False)
    except OSError as error:
        raise UserError(
            f"cannot listen on {FLAGS.host}:{FLAGS.port} ({error.strerror}): pass another --port "
            "or --host."
        ) from error
    host, port = listener.getsockname()[:2]
    print(f"serving {count} models at http://{host}:{port}/", flush=True)
    config = uvicorn.Config(application(FLAGS.root), log_level="warning", server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    flags.DEFINE_string("root", "dist/hub", "The tree to serve.")
    flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all.")
    flags.DEFINE_integer("port", 8000, "The port; 0 for any free one.", 0, 65535)
    cli.run("publish.serve", main)
