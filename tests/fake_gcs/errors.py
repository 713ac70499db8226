"""HTTP errors with the bodies that the real service sends."""

import json
from typing import Any

REASONS = {
    400: ("invalid", "Invalid argument."),
    401: ("authError", "Invalid Credentials"),
    403: (
        "forbidden",
        "someone@example.com does not have storage.objects.get access to the Google Cloud Storage object. "
        "Permission 'storage.objects.get' denied on resource (or it may not exist).",
    ),
    404: ("notFound", "Not Found"),
    405: ("methodNotAllowed", "The specified method is not allowed against this resource."),
    408: ("requestTimeout", "The request has timed out."),
    409: ("conflict", "Your previous request to create the named bucket succeeded and you already own it."),
    410: ("gone", "The requested upload session is no longer available."),
    412: ("conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
    416: ("requestedRangeNotSatisfiable", "Request range not satisfiable"),
    429: ("rateLimitExceeded", "The object exceeded the rate limit for object mutations. Please slow down."),
    500: ("internalError", "We encountered an internal error. Please try again."),
    501: ("notImplemented", "Not Implemented"),
    502: ("badGateway", "Bad Gateway"),
    503: ("backendError", "We encountered an internal error. Please try again."),
    504: ("gatewayTimeout", "Gateway Timeout"),
}  # fmt: skip


class HttpError(Exception):
    """Ends a request with a status other than success."""

    def __init__(self, status: int, message: str | None = None, reason: str | None = None):
        default_reason, default_message = REASONS.get(status, ("backendError", "error"))
        self.status, self.reason, self.message = status, reason or default_reason, message or default_message
        super().__init__(f"{status} {self.message}")

    def body(self) -> bytes:
        """The JSON that the client libraries parse."""
        detail: dict[str, Any] = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.status == 412:
            detail |= {"locationType": "header", "location": "If-Match"}
        if self.status == 401:
            detail |= {"locationType": "header", "location": "Authorization"}
        if self.status == 429:
            detail["domain"] = "usageLimits"
        error = {"code": self.status, "message": self.message, "errors": [detail]}
        return json.dumps({"error": error}, indent=2).encode()


def no_bucket() -> HttpError:
    """404 of a bucket."""
    return HttpError(404, "The specified bucket does not exist.")


def no_object(bucket: str, name: str) -> HttpError:
    """404 of an object."""
    return HttpError(404, f"No such object: {bucket}/{name}")
