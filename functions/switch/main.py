"""The switch: when the budget is used up, it closes the endpoint and the page to the public.

It removes `allUsers` from the search function's invokers and from the site bucket's readers, and switches on the
invoker check of a function that serves the page itself. Nothing is deleted; `visor deploy` opens everything again.
"""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import functions_framework
from cloudevents.http import CloudEvent

RUN = "https://run.googleapis.com/v2"
STORAGE = "https://storage.googleapis.com/storage/v1"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
PUBLIC = ("allUsers", "allAuthenticatedUsers")
TIMEOUT_S = 20
ATTEMPTS = 3

Policy = dict[str, Any]


@functions_framework.cloud_event
def switch(event: CloudEvent) -> None:
    """Handle one budget notification. They arrive several times a day, whatever the cost; raising requests a retry."""
    notification = json.loads(base64.b64decode(event.data["message"]["data"]))
    if not is_used(notification, float(os.environ["SWITCH_CLOSE_AT"])):
        return
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    session = AuthorizedSession(google.auth.default(scopes=SCOPES)[0])
    closed = close(session, os.environ["SWITCH_SERVICE"], os.environ["SWITCH_BUCKET"])
    message = f"Budget used: closed {', '.join(closed)}" if closed else "Budget used: everything was closed already"
    print(
        json.dumps({"severity": "ALERT" if closed else "INFO", "message": message, "cost": notification["costAmount"]})
    )


def is_used(notification: dict[str, Any], share: float) -> bool:
    """Whether the month's cost so far has reached `share` of the budget; never if nothing was spent."""
    cost = float(notification["costAmount"])
    return cost > 0 and cost >= share * float(notification["budgetAmount"])


def close(session: Any, service: str, bucket: str, *, run: str = RUN, storage: str = STORAGE) -> list[str]:
    """Remove public access from both policies. Returns what was open.

    Args:
        session: Sends authorised requests, as `requests.Session` does.
        service: Full name of the Cloud Run service.
        bucket: Name of the site bucket; empty if the function serves the page.

    Raises:
        requests.HTTPError: One could not be closed; the other was closed if possible.
    """

    def put_run(policy: Policy) -> Any:
        return session.post(f"{run}/{service}:setIamPolicy", json={"policy": policy}, timeout=TIMEOUT_S)

    def put_storage(policy: Policy) -> Any:
        return session.put(f"{storage}/b/{bucket}/iam", json=policy, timeout=TIMEOUT_S)

    doors: dict[str, Callable[[], bool]] = {
        "endpoint": lambda: _close_one(
            session, f"{run}/{service}:getIamPolicy?options.requestedPolicyVersion=3", put_run
        ),
        "page": lambda: (
            _close_one(session, f"{storage}/b/{bucket}/iam?optionsRequestedPolicyVersion=3", put_storage)
            if bucket
            else _check_invokers(session, f"{run}/{service}")
        ),
    }
    closed, problems = [], []
    for door, shut in doors.items():
        try:
            if shut():
                closed.append(door)
        except OSError as exc:  # the base of requests' errors; one failure must not keep the other open
            problems.append(exc)
    if problems:
        raise problems[0]
    return closed


def _close_one(session: Any, address: str, put: Callable[[Policy], Any]) -> bool:
    """Read, change and write one policy; retried if someone else changed it meanwhile. False if it was not public."""
    for attempt in range(ATTEMPTS):
        answer = session.get(address, timeout=TIMEOUT_S)
        answer.raise_for_status()
        policy = without_public(answer.json())
        if policy is None:
            return False
        written = put(policy)
        if written.status_code not in (409, 412) or attempt == ATTEMPTS - 1:
            written.raise_for_status()
            return True
    return False


def _check_invokers(session: Any, service: str) -> bool:
    """Switch a service's invoker check on. False if it was on."""
    answer = session.get(service, timeout=TIMEOUT_S)
    answer.raise_for_status()
    if not answer.json().get("invokerIamDisabled"):
        return False
    body = {"name": answer.json()["name"], "invokerIamDisabled": False}
    session.patch(f"{service}?updateMask=invokerIamDisabled", json=body, timeout=TIMEOUT_S).raise_for_status()
    return True


def without_public(policy: Policy) -> Policy | None:
    """The policy without public access; None if it had none. Its etag stays, so that a concurrent change is noticed."""
    bindings = []
    for binding in policy.get("bindings", []):
        members = [m for m in binding.get("members", []) if m not in PUBLIC]
        if members:
            bindings.append({**binding, "members": members})
    return None if bindings == policy.get("bindings", []) else {**policy, "bindings": bindings}
