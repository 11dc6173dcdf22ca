"""Serves a hub's tree: archives to `tensorflow_hub`, pages to people.

    python -m publish.serve --root=dist/hub --port=8000

One URL, `/PUBLISHER/NAME/VERSION`, gives the archive to `hub.KerasLayer`, which asks for
`?tf-hub-format=compressed`, and the model's page to a browser: TensorFlow Hub's protocol,
https://www.tensorflow.org/hub/hosting. Without `/VERSION` it is the newest version.
"""

import os
import pathlib
import socket

import jinja2
import uvicorn
from absl import flags
from starlette import applications, requests, responses, routing, staticfiles

from export import cli, hub_page, spec
from publish import markdown, tree
from unpooling import text

__all__ = ["application", "uncompressed_location"]

FLAGS = flags.FLAGS
_NAME = "publish.serve"

_HERE = pathlib.Path(__file__).parent
_TYPES = {
    ".gz": "application/gzip",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
}
_HEADERS = {
    # Whatever a page might hold: no script but our own, nothing that is sent anywhere.
    "content-security-policy": "default-src 'none'; img-src 'self' https:; style-src 'self'; "
    "script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # Ask again, by ETag: a version may have been replaced.
}


def application(root: str) -> applications.Starlette:
    """Returns the ASGI application that serves the tree in `root`.

    The tree is read for each request, so that new models appear without a restart. A request gets
    what stands in the table made of it, and nothing else: no path is ever put together from a URL.

    Args:
      root: a tree that `publish.tree` made.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown.render_line

    # Not `async`: Starlette runs it in a thread, and reading files keeps nobody waiting.
    def serve(request: requests.Request) -> responses.Response:
        table = _Table(root)
        response = _respond(request, table, environment)
        response.headers.update(_HEADERS)
        tag = response.headers.get("etag")
        if response.status_code == 200 and tag and tag in _tags(request):
            kept = {name: response.headers[name] for name in ("etag", *_HEADERS)}
            return responses.Response(status_code=304, headers=kept)
        return response

    return applications.Starlette(
        routes=[
            routing.Mount("/static", staticfiles.StaticFiles(directory=_HERE / "static")),
            routing.Route("/{path:path}", serve),
        ]
    )


def uncompressed_location(asset_path: str) -> str:
    """Returns where a publisher has to unpack an archive for `?tf-hub-format=uncompressed`.

    Args:
      asset_path: the archive's URL.

    Returns:
      The same without .tar.gz; for a bucket of Google Cloud Storage, as its gs:// location, the
      only kind that `tensorflow_hub` takes.
    """
    location = asset_path.removesuffix(".tar.gz")
    for prefix in ("https://storage.googleapis.com/", "http://storage.googleapis.com/"):
        if location.startswith(prefix):
            return f"gs://{location.removeprefix(prefix)}"
    return location


class _Table:
    """What a tree has, by the path of its URL."""

    def __init__(self, root):
        docs = pathlib.Path(root, tree.DOCS)
        self.modules = tree.modules(root)  # by publisher, name and version
        self.models = {}  # path: module; the newest version without a version
        self.files = {}  # path: (file, module)
        self.pages = {}  # path: (text, page), of publishers and collections
        for module in self.modules:
            page = module.page
            name = f"{page.publisher}/{page.name}"
            self.models[name] = self.models[f"{name}/{page.version}"] = module
            for file in spec.files(module.kind):
                path = f"{tree.files_path(module.asset_path)}/{file}"
                self.files[path] = (os.path.join(module.folder, file), module)
        for path in [*docs.glob("*/*.md"), *docs.glob("*/collections/*/*.md")]:
            content = path.read_text(encoding="utf-8")
            page = hub_page.read(content)
            if page.kind == "Publisher":
                self.pages[page.publisher] = (content, page)
            else:
                for word in ("collection", "collections"):
                    name = f"{page.publisher}/{word}/{page.name}"
                    self.pages[name] = self.pages[f"{name}/{page.version}"] = (content, page)

    def versions(self, module):
        return [
            other
            for other in self.modules
            if (other.page.publisher, other.page.name) == (module.page.publisher, module.page.name)
        ]


def _respond(request, table, environment):
    path = request.path_params["path"].strip("/")
    wanted = request.query_params.get("tf-hub-format")
    if path in table.models and wanted == "compressed":
        module = table.models[path]
        return _file(module.path("tar.gz"), module)
    if path in table.models and wanted == "uncompressed":
        location = uncompressed_location(table.models[path].asset_path)
        return responses.PlainTextResponse(location, 303, {"location": location})
    if wanted is not None:
        if path in table.models:
            reason = f"tf-hub-format must be compressed or uncompressed. Received: {wanted}."
            return responses.PlainTextResponse(f"{text.one_line(reason)}\n", 400)
        return responses.PlainTextResponse(f"{_nothing_at(path, table)}\n", 404)
    if path in table.files:
        return _file(*table.files[path])

    def page(template, status=200, **values):
        values = {"base": str(request.base_url), **values}
        return responses.HTMLResponse(environment.get_template(template).render(values), status)

    if path == "":
        publishers = [p for content, p in table.pages.values() if p.kind == "Publisher"]
        newest = {(m.page.publisher, m.page.name): m for m in table.modules}.values()
        collections = {p.name: p for _, p in table.pages.values() if p.kind == "Collection"}
        return page(
            "index.html",
            modules=newest,
            publishers=publishers,
            collections=collections.values(),
        )
    if path in table.models:
        module = table.models[path]
        content = pathlib.Path(module.path("md")).read_text(encoding="utf-8")
        files_url = f"/{tree.files_path(module.asset_path)}"
        return page(
            "model.html",
            module=module,
            files_url=files_url,
            versions=table.versions(module),
            body=markdown.render(content, {os.path.dirname(module.asset_path): files_url}),
        )
    if path in table.pages:
        content, head = table.pages[path]
        return page("page.html", page=head, body=markdown.render(content, {}))
    return page("missing.html", 404, reason=_nothing_at(path, table), models=_newest_names(table))


def _file(path, module):
    """A file with its SHA-256 as its ETag; ranges and HEAD are Starlette's."""
    name = os.path.basename(path)
    digest = module.digests.get(name)
    return responses.FileResponse(
        path,
        media_type=_TYPES.get(os.path.splitext(name)[1], "text/plain; charset=utf-8"),
        headers={"etag": f'"{digest}"'} if digest else None,
    )


def _tags(request):
    return [
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    ]


def _newest_names(table):
    return [name for name in table.models if name.count("/") == 1]


def _nothing_at(path, table):
    names = ", ".join(f"/{name}" for name in _newest_names(table)) or "none yet"
    return f"There is nothing at /{text.one_line(path)}. The models are: {names}."


def main() -> int:
    try:
        if not os.path.isdir(os.path.join(FLAGS.root, tree.DOCS)):
            raise FileNotFoundError(
                f"{FLAGS.root} is not a hub's tree, it has no {tree.DOCS}: make one with "
                "`python -m publish.tree`, or pass another --root."
            )
        count = len(tree.modules(FLAGS.root))
        try:
            listener = socket.create_server((FLAGS.host, FLAGS.port), reuse_port=False)
        except OSError as error:
            raise OSError(
                f"cannot listen on {FLAGS.host}:{FLAGS.port} ({error.strerror}): pass another "
                "--port or --host."
            ) from error
    except (ValueError, OSError) as error:
        return cli.fail(_NAME, str(error))
    host, port = listener.getsockname()[:2]
    print(f"serving {count} models at http://{host}:{port}/", flush=True)
    config = uvicorn.Config(application(FLAGS.root), log_level="warning", server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("root", "dist/hub", "The tree to serve.")
    flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 for all.")
    flags.DEFINE_integer("port", 8000, "The port; 0 for any free one.", 0, 65535)
    cli.run(_NAME, main)
