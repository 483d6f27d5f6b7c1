# What is here: the services, the names that the other files share, and the accounts as which everything runs.

locals {
  services = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "storage.googleapis.com",
    ],
    var.billing_account == null ? [] : ["billingbudgets.googleapis.com"],
    var.bulk ? ["compute.googleapis.com", "dataflow.googleapis.com"] : [],
    var.owner_key_version == 0 && length(var.source_secrets) == 0 ? [] : ["secretmanager.googleapis.com"],
  ))

  # Account id to what it is for.
  accounts = merge({
    crawl   = "Reads catalogues, publishes batches"
    embed   = "Turns batches into shards and items"
    compact = "Merges shards into segments"
    search  = "Answers searches"
    caller  = "Cloud Scheduler calls crawl and compact as this"
    push    = "Pub/Sub delivers to embed as this"
    build   = "Cloud Build builds the functions as this"
    },
    var.billing_account == null ? {} : { switch = "Closes the public endpoint when the budget is used" },
    var.bulk ? { bulk = "Dataflow's workers embed as this" } : {},
  )
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "service" {
  for_each = local.services

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

resource "google_service_account" "account" {
  for_each = local.accounts

  project      = var.project
  account_id   = "visor-${each.key}"
  display_name = "Visor ${each.key}"
  description  = each.value

  depends_on = [google_project_service.service]
}
