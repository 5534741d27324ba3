"""The admin endpoint: `/metrics`, `/livez` and `/readyz`, on a thread of its own."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import orjson
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from engine.errors import ConfigError
from engine.observe.metrics import Metrics, MetricsCollector

# What the log says, with the address, once it serves.
LISTENING = "admin endpoint listening"

Health = Callable[[], tuple[bool, dict[str, object]]]


class AdminServer:
    """Serves until closed. `alive` and `ready` say how the worker is: whether all is well, and details."""

    def __init__(self, address: tuple[str, int], metrics: Metrics, alive: Health, ready: Health) -> None:
        """Binds at once; raises ConfigError where the address is taken."""
        registry = CollectorRegistry()
        registry.register(MetricsCollector(metrics))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        scrape = make_wsgi_app(registry)
        checks = {"/livez": alive, "/readyz": ready}

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "/")
            if path == "/metrics":
                families: Iterable[bytes] = scrape(environ, start_response)
                return families
            if path not in checks:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"try /metrics, /livez or /readyz\n"]
            well, details = checks[path]()
            start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "application/json")])
            return [orjson.dumps({"ok": well, **details}, option=orjson.OPT_APPEND_NEWLINE)]

        try:
            self._server = make_server(*address, answer, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise ConfigError(f"observe.listen: {address[0]}:{address[1]} cannot be used: {error.strerror}") from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
        self._thread.start()

    def __enter__(self) -> "AdminServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""
