"""The error tree. Every error says what was found, what is valid and what to do.

    VisorError
    ├── SettingsError                 a setting or configuration file cannot be used
    │   └── NotConfigured             a source cannot be used here as things are
    ├── SourceError                   a source cannot read its catalogue
    │   └── SourceUnavailable         … for now (retriable)
    ├── ImageError                    one picture cannot become a vector
    │   ├── FetchRefused              Visor does not fetch its URL (scheme, private network, too many redirects)
    │   ├── FetchFailed               its origin said no for good (404, 403, not a picture, too large)
    │   ├── FetchUnavailable          its origin did not answer, for now (retriable)
    │   │   ├── HostPaused            … not requested, because its host wants to be left alone for a while
    │   │   └── HostDead              … because its host could not be connected to, again and again
    │   ├── UndecodableImage          its bytes are not a picture that Visor decodes
    │   │   └── UndecodableNow        … but another try may succeed: an HTML page, an empty file, too little memory
    │   ├── UnsafeImage               the safety head refuses it for the index or as a query
    │   ├── EmbedCrashed              it ended its batch in an unforeseen way
    │   └── NothingToCompare          it shows nothing, or half of it is missing: indexed, but not taken for a copy
    ├── ModelError                    a model cannot be built or run
    │   ├── WeightsUnavailable        its weights are not available from here
    │   └── ModelNotBuilt             its model directory is missing or incomplete
    ├── StoreError                    a store could not do what was asked
    │   ├── NotFound                  nothing of that name
    │   ├── Conflict                  a compare-and-swap or guarded write lost
    │   └── StoreUnavailable          the store did not answer, for now (retriable)
    ├── DeployError                   a step of a deployment could not be done
    ├── FormatError                   a stored object cannot be read
    │   ├── CorruptObject             its checksum or structure is wrong
    │   └── NewerFormat               a later Visor wrote it
    └── RequestError                  a request cannot be answered
        ├── BadRequest
        ├── UnknownItem
        ├── UnknownHandle             the picture of that handle has been forgotten: send it again
        ├── OtherModel                a device ran another model than the index's on that picture
        ├── UnsupportedMediaType
        ├── RequestTooLarge
        ├── RequestTooSlow
        ├── KeyRequired
        ├── Forbidden                 the calling page, or the host name that it uses, is not one of ours
        └── QuotaReached

Errors of other libraries are translated where they enter, with `raise … from exc`.
"""

from __future__ import annotations

from typing import ClassVar


class VisorError(Exception):
    """Base of every error that Visor raises on purpose.

    Args:
        found: What was found, as one sentence without its full stop.
        valid: What would have been valid, worded to follow 'Valid:' or 'What works:'; nothing of what was found.
        remedy: What to do about it.
    """

    code: ClassVar[str] = "visor_error"
    """The stable name of this kind of error: in failure records, problem documents and logs."""
    retriable: ClassVar[bool] = False
    """True if the same call may succeed later without a change on our side."""

    def __init__(self, found: str, *, valid: str = "", remedy: str = "") -> None:
        self.found = found
        self.valid = valid
        self.remedy = remedy
        said = (found, valid and f"Valid: {valid}", remedy)
        super().__init__(". ".join(" ".join(part.split()).rstrip(".") for part in said if part) + ".")


class SettingsError(VisorError):
    code = "bad_settings"


class SourceError(VisorError):
    code = "source_error"


class SourceUnavailable(SourceError):
    code = "source_unavailable"
    retriable = True


class ImageError(VisorError):
    """`answer` is the body of the origin's error response, if it is JSON."""

    code = "image_error"
    certain: ClassVar[bool] = False
    """True if another try with the same picture fails in the same way, unless a setting in the message has changed."""
    answer: bytes = b""


class FetchRefused(ImageError):
    code = "fetch_refused"


class FetchFailed(ImageError):
    """`status` is the HTTP status of the origin's answer, if a status is the reason."""

    code = "fetch_failed"
    elsewhere = ""
    """The URL on another host that failed, if the origin redirects to it: the origin itself did not refuse."""

    def __init__(self, found: str, *, valid: str = "", remedy: str = "", status: int | None = None) -> None:
        super().__init__(found, valid=valid, remedy=remedy)
        self.status = status


class FetchUnavailable(ImageError):
    """`retry_after_s` is the wait that the origin asked for, in seconds, if it named one."""

    code = "fetch_unavailable"
    retriable = True

    def __init__(self, found: str, *, valid: str = "", remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(found, valid=valid, remedy=remedy)
        self.retry_after_s = retry_after_s


class HostPaused(FetchUnavailable):
    """It was not requested: its host wants to be left alone for a while."""


class HostDead(FetchUnavailable):
    """Its host could not be connected to again and again, and is left alone for a while."""


class UndecodableImage(ImageError):
    code = "undecodable_image"
    certain = True


class UndecodableNow(UndecodableImage):
    certain = False


class UnsafeImage(ImageError):
    code = "unsafe_image"
    certain = True


class NothingToCompare(ImageError):
    code = "nothing_to_compare"
    certain = True


class EmbedCrashed(ImageError):
    """Any other error while an item of a batch was embedded; the other items are not held up."""

    code = "embed_crashed"


class ModelError(VisorError):
    code = "model_error"


class WeightsUnavailable(ModelError):
    code = "weights_unavailable"


class ModelNotBuilt(ModelError):
    code = "model_not_built"


class StoreError(VisorError):
    code = "store_error"


class NotFound(StoreError):
    code = "not_found"


class Conflict(StoreError):
    code = "conflict"


class StoreUnavailable(StoreError):
    code = "store_unavailable"
    retriable = True


class DeployError(VisorError):
    code = "deploy_error"


class FormatError(VisorError):
    code = "format_error"


class CorruptObject(FormatError):
    code = "corrupt_object"


class NewerFormat(FormatError):
    code = "newer_format"


class RequestError(VisorError):
    code = "request_error"
    status: ClassVar[int] = 400


class BadRequest(RequestError):
    code = "bad_request"


class UnknownItem(RequestError):
    code = "unknown_item"
    status = 404


class UnknownHandle(RequestError):
    code = "unknown_handle"
    status = 404


class OtherModel(RequestError):
    code = "other_model"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    status = 415


class RequestTooLarge(RequestError):
    code = "request_too_large"
    status = 413


class RequestTooSlow(RequestError):
    code = "request_too_slow"
    status = 408


class KeyRequired(RequestError):
    code = "key_required"
    status = 401


class Forbidden(RequestError):
    code = "forbidden"
    status = 403


class QuotaReached(RequestError):
    """`retry_after_s` is the time until there is room again, in seconds, if known."""

    code = "quota_reached"
    status = 429

    def __init__(self, found: str, *, valid: str = "", remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(found, valid=valid, remedy=remedy)
        self.retry_after_s = retry_after_s


class DropItem(Exception):
    """A row does not become an item, for the given reason. Not a failure of the source."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NotConfigured(SettingsError):
    """A source cannot be used here as things are: an extra is not installed, a folder is not named."""

    code = "not_configured"

    @property
    def reason(self) -> str:
        return self.found
