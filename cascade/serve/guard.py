"""What guards the viewer and the server: which names they answer to, who may post, what a page may load.

A page of another site must not read traces, or ask models, by resolving its own name to this machine (DNS
rebinding), so only known names are answered. It must not post to the viewer either, so a browser's `Origin`
and `Sec-Fetch-Site` have to name this site; a program that sends neither is no browser.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with `no-referrer` a form's Origin would be `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


class HostGuardMiddleware:
    """ASGI middleware that refuses foreign hosts, and adds the security headers.

    Args:
        app: what is guarded.
        hosts: names and addresses that are answered to, beside those of the loopback interface; with a
            wildcard address (`0.0.0.0`, `::`) among them, any address, but still no unknown name.
        refuse: makes the answer, with status 403, out of the reason; default: a line of text.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str] = (), refuse: Callable[[str], ASGIApp] | None = None
    ) -> None:
        self.app = app
        self.hosts = {_name(host if host.count(":") < 2 else f"[{host.strip('[]')}]") for host in hosts}
        self._refuse = refuse or _as_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._refuse(refusal) if refusal else self.app
        await app(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if self._knows(_name(host)):
            return None
        return f"host {host!r:.200} is not this server; use its address, or start it with --allow-host"

    def _knows(self, name: str) -> bool:
        if name == "localhost" or name in self.hosts:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or bool(self.hosts & _WILDCARDS)


class SiteGuardMiddleware(HostGuardMiddleware):
    """ASGI middleware that also refuses to be posted to by a page of another site."""

    def _refusal(self, method: str, headers: Headers) -> str | None:
        if (refusal := super()._refusal(method, headers)) is not None or method in ("GET", "HEAD"):
            return refusal
        host, origin, site = headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return f"origin {origin!r:.200} is not this site ({host}); grade in the viewer's own pages"
        if site is not None and site not in ("same-origin", "none"):
            return f"Sec-Fetch-Site is {site!r:.200}; grade in the viewer's own pages"
        return None


def _as_text(refusal: str) -> ASGIApp:
    return PlainTextResponse(f"{refusal}\n", 403)


def _name(host: str) -> str:
    """Return the name or address in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
