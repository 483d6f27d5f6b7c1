# What is here: the two schedules. Three jobs are free for a billing account.

locals {
  schedules = {
    crawl   = { schedule = var.crawl_schedule, description = "Read the catalogues and publish what changed" }
    compact = { schedule = var.compact_schedule, description = "Merge shards into segments" }
  }
}

resource "google_cloud_scheduler_job" "job" {
  for_each = local.schedules

  project          = var.project
  region           = var.region
  name             = "visor-${each.key}"
  description      = each.value.description
  schedule         = each.value.schedule
  time_zone        = var.time_zone
  attempt_deadline = "1800s"

  retry_config {
    retry_count          = 2
    min_backoff_duration = "60s"
    max_backoff_duration = "600s"
    max_doublings        = 2
  }

  http_target {
    http_method = "POST"
    uri         = google_cloudfunctions2_function.function[each.key].service_config[0].uri

    oidc_token {
      service_account_email = google_service_account.account["caller"].email
      audience              = google_cloudfunctions2_function.function[each.key].service_config[0].uri
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker]
}
