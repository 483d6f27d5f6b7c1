# What is here: the switch. If the project costs money all the same, the public doors close by themselves.
# Only with `billing_account`; budgets know of a cost some hours after it arose.

locals {
  # Where money may be spent, the alert and the switch follow that sum; Visor's own meters stop below it. A budget of
  # Google's has a whole number, of which the sum is a share, in 1024ths: a float has them exactly.
  alert_amount = var.budget.spend > 0 ? ceil(var.budget.spend) : var.budget.amount
  close_at     = var.budget.spend > 0 ? max(1, floor(var.budget.spend / ceil(var.budget.spend) * 1024)) / 1024 : var.budget.close_at

  guarded = var.billing_account == null ? toset([]) : toset(["budget"])

  # Read by functions/switch/main.py, which knows nothing of visor.settings.
  switch_environment = {
    SWITCH_SERVICE  = "projects/${var.project}/locations/${var.region}/services/visor-search"
    SWITCH_BUCKET   = var.public == "function" ? "" : google_storage_bucket.bucket["site"].name
    SWITCH_CLOSE_AT = tostring(local.close_at)
  }
}

resource "google_pubsub_topic" "budget" {
  #checkov:skip=CKV_GCP_83: keys of one's own cost money each month; Google encrypts with its own
  for_each = local.guarded

  project = var.project
  name    = "visor-budget"

  depends_on = [google_project_service.service]
}

resource "google_pubsub_topic_iam_member" "budget" {
  for_each = local.guarded

  project = var.project
  topic   = google_pubsub_topic.budget[each.key].name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:billing-budget-alert@system.gserviceaccount.com"
}

resource "google_billing_budget" "budget" {
  for_each = local.guarded

  billing_account = var.billing_account
  display_name    = "Visor in ${var.project}"

  budget_filter {
    projects               = ["projects/${data.google_project.this.number}"]
    calendar_period        = "MONTH"
    credit_types_treatment = "INCLUDE_SPECIFIED_CREDITS"
    credit_types           = ["FREE_TIER"] # not PROMOTION: during a trial, too, the switch acts on what it would cost
  }

  amount {
    specified_amount {
      currency_code = var.budget.currency
      units         = tostring(local.alert_amount)
    }
  }

  threshold_rules {
    threshold_percent = local.close_at
    spend_basis       = "CURRENT_SPEND"
  }

  threshold_rules {
    threshold_percent = 1
    spend_basis       = "CURRENT_SPEND"
  }

  all_updates_rule {
    pubsub_topic   = google_pubsub_topic.budget[each.key].id
    schema_version = "1.0"
  }

  depends_on = [google_pubsub_topic_iam_member.budget]
}

resource "google_pubsub_subscription" "budget" {
  for_each = local.guarded

  project                    = var.project
  name                       = "visor-budget-switch"
  topic                      = google_pubsub_topic.budget[each.key].id
  ack_deadline_seconds       = 60
  message_retention_duration = "86400s"

  expiration_policy {
    ttl = ""
  }

  push_config {
    push_endpoint = "${google_cloudfunctions2_function.function["switch"].service_config[0].uri}/${google_pubsub_topic.budget[each.key].id}"

    oidc_token {
      service_account_email = google_service_account.account["push"].email
      audience              = google_cloudfunctions2_function.function["switch"].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker]
}

# May read and write who is let in, at exactly the two public doors, and nothing else.
resource "google_project_iam_custom_role" "switch" {
  for_each = local.guarded

  project     = var.project
  role_id     = "visorSwitch"
  title       = "Visor switch"
  description = "Change who may use one public door"
  permissions = concat([
    "run.services.getIamPolicy",
    "run.services.setIamPolicy",
    "storage.buckets.getIamPolicy",
    "storage.buckets.setIamPolicy",
  ], var.public == "function" ? ["run.services.get", "run.services.update"] : [])
}

# Switching the invoker check on again changes the service, which runs as search.
resource "google_service_account_iam_member" "switch" {
  for_each = var.public == "function" ? local.guarded : toset([])

  service_account_id = google_service_account.account["search"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.account["switch"].member
}

resource "google_cloud_run_v2_service_iam_member" "switch" {
  for_each = local.guarded

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.function["search"].name
  role     = google_project_iam_custom_role.switch[each.key].id
  member   = google_service_account.account["switch"].member
}

resource "google_storage_bucket_iam_member" "switch" {
  for_each = var.public == "function" ? toset([]) : local.guarded

  bucket = google_storage_bucket.bucket["site"].name
  role   = google_project_iam_custom_role.switch[each.key].id
  member = google_service_account.account["switch"].member
}
