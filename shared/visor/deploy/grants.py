"""Gives Cloud Build's service account its roles, and waits until they take effect.

python -m visor.deploy.grants PROJECT [BILLING_ACCOUNT]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from visor.deploy.process import parsed_output, run
from visor.deploy.steps import DEPLOYER_ROLES, deployer
from visor.errors import DeployError

HOLD_S = 120.0
"""Usual time, according to Google, until a role that was just granted takes effect everywhere."""
POLL_S = 5.0
POLLS = 24


def missing_roles(project: str) -> list[str]:
    """Which of `DEPLOYER_ROLES` the account does not have."""
    policy = parsed_output(["gcloud", "projects", "get-iam-policy", project, "--format=json"]) or {}
    member = f"serviceAccount:{deployer(project)}"
    own = {b["role"] for b in policy.get("bindings", []) if member in b["members"] and "condition" not in b}
    return [role for role in DEPLOYER_ROLES if role not in own]


def grant(project: str, billing_account: str | None) -> None:
    """Grant the missing roles; with a billing account, also the role that a budget needs.

    Raises:
        DeployError: gcloud refused, or the roles do not show after two minutes.
    """
    missing, member = missing_roles(project), f"--member=serviceAccount:{deployer(project)}"
    for role in missing:
        add = ["gcloud", "projects", "add-iam-policy-binding", project, member, f"--role={role}"]
        run([*add, "--condition=None", "--quiet", "--format=none"], cwd=Path())
    if billing_account:
        add = ["gcloud", "billing", "accounts", "add-iam-policy-binding", billing_account, member]
        run([*add, "--role=roles/billing.costsManager", "--quiet", "--format=none"], cwd=Path())
    if not missing:
        return
    for _ in range(POLLS):
        if not missing_roles(project):
            print(f"Roles were granted; they take effect in {HOLD_S:.0f} s", file=sys.stderr, flush=True)
            time.sleep(HOLD_S)
            return
        time.sleep(POLL_S)
    raise DeployError(
        f"{deployer(project)} lacks {', '.join(missing_roles(project))}",
        valid="All of them, after two minutes",
        remedy="Run `visor deploy --cloud` again; if roles are still missing, ask who may grant them in the project",
    )


if __name__ == "__main__":
    try:
        grant(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    except DeployError as exc:
        sys.exit(str(exc))
