"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from math import ceil
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from cascade.errors import CascadeError, RequestError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ErrorDetail(BaseModel):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


# For the OpenAPI description.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 413, 415, 429, 500, 503)
}


class ApiError(Exception):
    """A refusal with its HTTP status.

    Attributes:
        status: the HTTP status.
        code: a word for programs, such as `model_not_found`.
        param: the field of the request that is at fault.
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """Return the error in the form OpenAI's clients expect."""
        default = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, default)
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        headers = {} if self.retry_after is None else {"Retry-After": f"{max(1, ceil(self.retry_after))}"}
        if self.code == "insufficient_quota":
            headers["X-Should-Retry"] = (
                "false"  # otherwise OpenAI's clients retry a 429, and each retry is a run
            )
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="cascade", Basic realm="cascade"'
        return JSONResponse(self.body(), self.status, headers)


def as_api_error(error: CascadeError) -> ApiError:
    """Return the HTTP error for an exception of a cascade."""
    if isinstance(error, RequestError):
        return ApiError(400, str(error), code="invalid_request")
    return ApiError(500, str(error), code="cascade_error")
