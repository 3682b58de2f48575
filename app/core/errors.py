"""Every error that a client can be given, in one tree.

GatewayError
├── InvalidRequest            400  invalid_request
│   ├── InvalidJSON           400  invalid_json
│   └── AmbiguousJSON         400  ambiguous_json
├── InvalidAPIKey             401  invalid_api_key       one constant answer
├── InvalidAdminToken         401  invalid_admin_token   one constant answer, of the control plane
├── UnpricedModel             402  unpriced_model
├── ModelNotAllowed           403  model_not_allowed
├── EndpointNotAllowed        403  endpoint_not_allowed
├── Forbidden                 403  forbidden             what this person may not do in the control plane
├── NotFound                  404  not_found             unknown and not yours are one answer
│   ├── ModelNotFound         404  model_not_found
│   └── StoredObjectNotFound  404  not_found             an id that a request names
│       └── PreviousResponseNotFound 404 previous_response_not_found
├── MethodNotAllowed          405  method_not_allowed
├── RequestTimeout            408  request_timeout
├── Conflict                  409  already_exists
├── IdempotencyKeyInUse       409  idempotency_key_in_use
├── BodyTooLarge              413  body_too_large
├── URITooLong                414  uri_too_long
├── UnsupportedMediaType      415  unsupported_media_type
├── UnsupportedContentEncoding 415  unsupported_content_encoding
├── IdempotencyKeyReused      422  idempotency_key_reused
├── UpgradeRequired           426  upgrade_required
├── RateLimited               429  rate_limit_exceeded
│   └── TooManyFailedKeys     429  rate_limit_exceeded
├── InsufficientQuota         429  insufficient_quota    never worth a retry
├── HeadersTooLarge           431  headers_too_large
├── InternalError             500  internal_error        a bug
├── NotCached                 504  not_cached            only what is cached was wanted
├── UpstreamError
│   ├── UpstreamBusy              503  overloaded             its own bound of connections is met
│   ├── UpstreamPaused            503  upstream_paused        an administrator wants nothing new to go there
│   ├── UpstreamUnreachable       502  upstream_unreachable
│   │   └── CircuitOpen           502  upstream_unreachable   it fails, and is left alone
│   ├── UpstreamInvalidResponse   502  upstream_invalid_response
│   ├── UpstreamAuthFailed        502  upstream_auth_failed
│   ├── UpstreamOutcomeUnknown    502  upstream_outcome_unknown   may have been billed
│   └── UpstreamTimeout           504  upstream_timeout           may have been billed
└── Unavailable
    ├── Overloaded            503  overloaded
    ├── Draining              503  draining
    │   └── CutByShutdown     503  draining                  may have been billed
    ├── LedgerUnavailable     503  ledger_unavailable
    └── LimitsUnavailable     503  limits_unavailable

The body is always ``{"error": {"message", "type", "param", "code"}}``; ``render`` is the one place
that makes it. Texts of a client's own are cut at 200 characters.
"""

from __future__ import annotations

import copy
import random
from typing import ClassVar

import msgspec

Headers = list[tuple[bytes, bytes]]

QUOTE_CHARS_MAX = 200


class GatewayError(Exception):
    """An answer of the gateway's own. ``retry_after_ms`` becomes ``retry-after`` and ``retry-after-ms``."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "The gateway failed."
    should_retry: ClassVar[bool | None] = None
    retry_after_range_ms: ClassVar[tuple[int, int] | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_ms: int | None = None,
        should_retry: bool | None = None,
        headers: Headers | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.param = param
        self.retry_after_ms = retry_after_ms
        self.retry = self.should_retry if should_retry is None else should_retry
        self.headers: Headers = headers or []
        self.explanation: dict[str, object] = {}
        """What was decided, for ``explain``; the client is not told."""
        super().__init__(self.message)


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    default_message = "The request is not valid."


class InvalidJSON(InvalidRequest):
    code = "invalid_json"
    default_message = "The body is not strict UTF-8 JSON."


class AmbiguousJSON(InvalidRequest):
    code = "ambiguous_json"
    default_message = "The body has a member twice."


class InvalidAPIKey(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    default_message = "Incorrect API key provided. Ask whoever runs this gateway for a key."


class InvalidAdminToken(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_admin_token"
    default_message = "Sign in, or send an admin token as a bearer."


class Forbidden(GatewayError):
    status = 403
    type = "invalid_request_error"
    code = "forbidden"
    default_message = "You may not do this; an administrator may."


class Conflict(GatewayError):
    status = 409
    type = "invalid_request_error"
    code = "already_exists"
    default_message = "There is one like it already."


class UnpricedModel(GatewayError):
    status = 402
    type = "invalid_request_error"
    code = "unpriced_model"
    default_message = "This model has no price, and this gateway refuses what it cannot price."
    should_retry = False


class ModelNotAllowed(GatewayError):
    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"
    default_message = "This key may not use this model."


class EndpointNotAllowed(GatewayError):
    status = 403
    type = "invalid_request_error"
    code = "endpoint_not_allowed"
    default_message = "This key may not use this endpoint."


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"
    default_message = "Not found."


class ModelNotFound(NotFound):
    code = "model_not_found"
    default_message = "No upstream serves this model."


class StoredObjectNotFound(NotFound):
    """An id that is not the team's; the answer is the same whether there is such an object or not."""

    @classmethod
    def of(cls, param: str, object_id: str) -> StoredObjectNotFound:
        """``param`` names where the id stands."""
        if param == "previous_response_id":
            text = f"Previous response with id {quoted(object_id[:64])!r} not found."
            return PreviousResponseNotFound(text, param=param)
        return cls(f"The object named in {param} was not found.", param=param)


class PreviousResponseNotFound(StoredObjectNotFound):
    """The code is the API's own, which agents know to begin anew by."""

    code = "previous_response_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    default_message = "This method is not allowed here."


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    default_message = "The request did not arrive in time."


class IdempotencyKeyInUse(GatewayError):
    status = 409
    type = "invalid_request_error"
    code = "idempotency_key_in_use"
    default_message = "A request with this Idempotency-Key is running. Its answer will be given to the next one."
    retry_after_range_ms = (1000, 2000)


class IdempotencyKeyReused(GatewayError):
    status = 422
    type = "invalid_request_error"
    code = "idempotency_key_reused"
    default_message = "This Idempotency-Key was used for another request."


class NotCached(GatewayError):
    """RFC 9111, 5.2.1.7: a client that wants only what is cached gets 504 where nothing is."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"
    default_message = "There is no cached answer to this request, and nothing else was wanted."
    should_retry = False


class BodyTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "body_too_large"
    default_message = "The request body is too large."


class URITooLong(GatewayError):
    status = 414
    type = "invalid_request_error"
    code = "uri_too_long"
    default_message = "The request target is too long."


class UnsupportedMediaType(GatewayError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"
    default_message = "The content type must be application/json."


class UnsupportedContentEncoding(GatewayError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_content_encoding"
    default_message = "This content-encoding is not supported."


class UpgradeRequired(GatewayError):
    status = 426
    type = "invalid_request_error"
    code = "upgrade_required"
    default_message = "WebSocket is not served here; use HTTP."


class RateLimited(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    default_message = "Rate limit exceeded."


class TooManyFailedKeys(RateLimited):
    default_message = "Too many requests with a wrong key from this address."


class InsufficientQuota(GatewayError):
    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    default_message = "The quota is used up."
    should_retry = False


class HeadersTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"
    default_message = "The request headers are too large."


class InternalError(GatewayError):
    default_message = "The gateway failed. The request id tells its operator more."


class UpstreamError(GatewayError):
    """The upstream gave no usable answer, before the first byte went to the client."""

    status = 502
    type = "upstream_error"


class UpstreamBusy(UpstreamError):
    status = 503
    type = "server_error"
    code = "overloaded"
    default_message = "The gateway has as many calls to this upstream under way as it may. Nothing was sent."
    retry_after_range_ms = (1000, 5000)


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    default_message = "The upstream could not be reached. Nothing was sent, nothing is billed."
    retry_after_range_ms = (2000, 2000)


class CircuitOpen(UpstreamUnreachable):
    default_message = (
        "Every upstream of this model fails and is left alone for now. Nothing was sent, nothing is billed."
    )


class UpstreamPaused(UpstreamError):
    status = 503
    type = "server_error"
    code = "upstream_paused"
    default_message = (
        "An administrator has paused the upstream that this request needs. Nothing was sent, nothing is billed."
    )
    should_retry = False


class UpstreamInvalidResponse(UpstreamError):
    code = "upstream_invalid_response"
    default_message = "The upstream gave an answer that is not valid."
    should_retry = False


class UpstreamAuthFailed(UpstreamError):
    code = "upstream_auth_failed"
    default_message = "The upstream refused the gateway's credentials. Your key is fine; the operator must act."
    should_retry = False


class UpstreamOutcomeUnknown(UpstreamError):
    code = "upstream_outcome_unknown"
    default_message = "The upstream closed the connection before it answered. The call may have been billed."
    should_retry = False


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    default_message = "The upstream did not answer in time. The call may have been billed."
    should_retry = False


class Unavailable(GatewayError):
    """Try again soon; ``retry-after`` is spread so that clients do not come back at once."""

    status = 503
    type = "server_error"
    retry_after_range_ms: ClassVar[tuple[int, int] | None] = (1000, 5000)


class Overloaded(Unavailable):
    code = "overloaded"
    default_message = "The gateway is at its limit of requests in flight."


class Draining(Unavailable):
    code = "draining"
    default_message = "This gateway is shutting down."


class CutByShutdown(Draining):
    default_message = "This gateway was shut down while the call ran; it may have been billed."
    should_retry = False
    retry_after_range_ms = None


class LedgerUnavailable(Unavailable):
    code = "ledger_unavailable"
    default_message = "The ledger cannot be written; nothing was sent."


class LimitsUnavailable(Unavailable):
    code = "limits_unavailable"
    default_message = "The store of limits does not answer; nothing was sent."
    retry_after_range_ms = (2000, 3000)


def copied(error: GatewayError) -> GatewayError:
    """The same answer for another request: each adds headers and explanations of its own."""
    other = copy.copy(error)
    other.headers = list(error.headers)
    other.explanation = dict(error.explanation)
    return other


def binds_key(error: GatewayError) -> bool:
    """Whether whoever asks the same with the same key gets the same refusal. What a tag limits may not bind another."""
    if isinstance(error, LimitsUnavailable | UnpricedModel):
        return True
    return isinstance(error, RateLimited | InsufficientQuota) and error.explanation.get("scope") not in {None, "tag"}


def quoted(text: str) -> str:
    """A client's own text for a message: cut, and without control characters."""
    cut = text if len(text) <= QUOTE_CHARS_MAX else text[:QUOTE_CHARS_MAX] + "…"
    return "".join(char if char.isprintable() else "�" for char in cut)


def error_body(error: GatewayError) -> bytes:
    """The JSON body of ``error``."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def render(error: GatewayError, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of ``error`` for a client."""
    body = error_body(error)
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"x-headgate-request-id", request_id.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    retry_after_ms = error.retry_after_ms
    if retry_after_ms is None and error.retry_after_range_ms is not None:
        retry_after_ms = random.randint(*error.retry_after_range_ms)  # noqa: S311 - jitter, not a secret
    if retry_after_ms is not None:
        headers.append((b"retry-after", b"%d" % -(-retry_after_ms // 1000)))
        headers.append((b"retry-after-ms", b"%d" % retry_after_ms))
    if error.retry is not None:
        headers.append((b"x-should-retry", b"true" if error.retry else b"false"))
    headers.extend(error.headers)
    return error.status, headers, body
