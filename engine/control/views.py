"""What can be asked over HTTP: read-only JSON, figures for Prometheus, and whether the worker is well."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from engine.control.figures import PlaneCollector, cases_json, drift_json, models_json, quality_json
from engine.control.plane import Plane


def make_views(app: Any, plane: Plane) -> None:
    """Each on a path of its own."""
    registry = CollectorRegistry()
    registry.register(PlaneCollector(plane))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    def answer(path: str, ask: Callable[[Any], Any]) -> None:
        async def view(web: Any, request: Any) -> Any:
            return web.json(ask(request))

        app.page(path, name=path.strip("/"))(view)

    answer("/quality", lambda request: quality_json(plane))
    answer("/drift", lambda request: drift_json(plane))
    answer("/cases", lambda request: cases_json(plane, request.query.get("status")))
    answer("/models", lambda request: models_json(plane))

    async def metrics(web: Any, request: Any) -> Any:
        return web.text(generate_latest(registry).decode(), content_type="text/plain")

    async def live(web: Any, request: Any) -> Any:
        return web.json({"ok": True})

    async def ready(web: Any, request: Any) -> Any:
        return web.json({"ok": plane.ready}, status=200 if plane.ready else 503)

    app.page("/metrics", name="metrics")(metrics)
    app.page("/livez", name="livez")(live)
    app.page("/readyz", name="readyz")(ready)
