# What is here: the one database, with no index entry that no query reads: an index entry takes storage.
# No time-to-live: deletes by it are billed from the first, compact's own are free (docs/decisions).

locals {
  # Collection to the single fields that the code queries by. All else is exempt.
  queried = {
    items          = ["indexed_at"]
    commits        = ["committed_at"]
    failures       = ["next_at"]
    tries          = []
    checkpoints    = []
    runs           = ["started_at"]
    meters         = []
    requests       = []
    feedback       = ["given_at"]
    feedback_inbox = ["given_at"]
    index          = []
    sites          = []
    sources        = []
    visitors       = ["added_at"]
  }

  single_fields = merge([
    for collection, fields in local.queried : { for field in fields : "${collection}.${field}" => { collection = collection, field = field } }
  ]...)
}

resource "google_firestore_database" "database" {
  project                           = var.project
  name                              = "(default)"
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_DISABLED"
  delete_protection_state           = var.protect_data ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = "DELETE" # which Google refuses while the protection is enabled

  depends_on = [google_project_service.service]
}

resource "google_firestore_field" "exempt" {
  for_each = local.queried

  project    = var.project
  database   = google_firestore_database.database.name
  collection = "${var.index}-${each.key}"
  field      = "*"

  index_config {}
}

resource "google_firestore_field" "queried" {
  for_each = local.single_fields

  project    = var.project
  database   = google_firestore_database.database.name
  collection = "${var.index}-${each.value.collection}"
  field      = each.value.field

  index_config {
    indexes {
      order       = "ASCENDING"
      query_scope = "COLLECTION"
    }
    indexes {
      order       = "DESCENDING"
      query_scope = "COLLECTION"
    }
  }

  depends_on = [google_firestore_field.exempt]
}

# Runs of one source, newest first.
resource "google_firestore_index" "runs_of_source" {
  project     = var.project
  database    = google_firestore_database.database.name
  collection  = "${var.index}-runs"
  query_scope = "COLLECTION"

  fields {
    field_path = "source"
    order      = "ASCENDING"
  }

  fields {
    field_path = "started_at"
    order      = "DESCENDING"
  }
}
