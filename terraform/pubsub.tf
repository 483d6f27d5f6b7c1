# What is here: the queue of batches. The subscription is our own and not Eventarc's, because Eventarc's takes neither
# a dead-letter topic nor a back-off from Terraform (docs/decisions, "push subscription").

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "topic" {
  #checkov:skip=CKV_GCP_83: keys of one's own cost money each month; Google encrypts with its own
  for_each = toset(["batches", "dead-letters"])

  project = var.project
  name    = "visor-${each.key}"

  depends_on = [google_project_service.service]
}

resource "google_pubsub_subscription" "batches" {
  project                    = var.project
  name                       = "visor-batches-embed"
  topic                      = google_pubsub_topic.topic["batches"].id
  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"
  retain_acked_messages      = false

  expiration_policy {
    ttl = ""
  }

  push_config {
    # The path tells functions-framework the topic, for the source of the CloudEvent it makes.
    push_endpoint = "${google_cloudfunctions2_function.function["embed"].service_config[0].uri}/${google_pubsub_topic.topic["batches"].id}"

    oidc_token {
      service_account_email = google_service_account.account["push"].email
      audience              = google_cloudfunctions2_function.function["embed"].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.topic["dead-letters"].id
    max_delivery_attempts = 100 # a delivery that finds every instance busy counts, too; embed counts its own tries
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker]
}

resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project
  name                       = "visor-dead-letters"
  topic                      = google_pubsub_topic.topic["dead-letters"].id
  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"
  retain_acked_messages      = false

  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub itself moves dead letters: it publishes them there and acknowledges them here.
resource "google_pubsub_topic_iam_member" "dead_letters" {
  project = var.project
  topic   = google_pubsub_topic.topic["dead-letters"].name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "batches" {
  project      = var.project
  subscription = google_pubsub_subscription.batches.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
