# What is here: who may do what. One account a function, each with the least that it needs.

locals {
  # Roles on the whole project; Firestore knows no smaller one.
  project_roles = merge({
    crawl   = ["roles/datastore.user"]
    embed   = ["roles/datastore.user"]
    compact = ["roles/datastore.user"]
    search  = ["roles/datastore.user"]
    build   = ["roles/logging.logWriter"]
    },
    var.bulk ? { bulk = ["roles/datastore.user", "roles/dataflow.worker"] } : {},
  )

  # Roles on one bucket. search reads by name and never lists, so it may not.
  bucket_roles = merge({
    crawl   = { bucket = "index", role = "roles/storage.objectUser" }
    embed   = { bucket = "index", role = "roles/storage.objectUser" }
    compact = { bucket = "index", role = "roles/storage.objectUser" }
    search  = { bucket = "index", role = "roles/storage.legacyObjectReader" }
    build   = { bucket = "sources", role = "roles/storage.objectViewer" }
    },
    var.bulk ? { bulk = { bucket = "index", role = "roles/storage.objectUser" } } : {},
  )

  # Function to whoever may call it.
  invokers = merge({
    crawl   = google_service_account.account["caller"].member
    compact = google_service_account.account["caller"].member
    embed   = google_service_account.account["push"].member
    },
    var.public == "function" ? {} : { search = "allUsers" },
    var.billing_account == null ? {} : { switch = google_service_account.account["push"].member },
  )

  project_role_pairs = merge([
    for account, roles in local.project_roles : { for role in roles : "${account} ${role}" => { account = account, role = role } }
  ]...)
}

resource "google_project_iam_member" "role" {
  for_each = local.project_role_pairs

  project = var.project
  role    = each.value.role
  member  = google_service_account.account[each.value.account].member
}

# Cloud Functions copies each bundle into a bucket of its own, which it makes, and builds from there.
resource "google_project_iam_member" "build_sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.account["build"].member

  condition {
    title      = "function-sources"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-\")"
  }
}

resource "google_storage_bucket_iam_member" "role" {
  for_each = local.bucket_roles

  bucket = google_storage_bucket.bucket[each.value.bucket].name
  role   = each.value.role
  member = google_service_account.account[each.key].member
}

resource "google_storage_bucket_iam_member" "bulk" {
  count = var.bulk ? 1 : 0

  bucket = google_storage_bucket.bucket["beam"].name
  role   = "roles/storage.objectUser"
  member = google_service_account.account["bulk"].member
}

resource "google_storage_bucket_iam_member" "publish" {
  count = var.publish ? 1 : 0

  bucket = google_storage_bucket.bucket["site"].name
  role   = "roles/storage.objectUser"
  member = google_service_account.account["compact"].member
}

resource "google_pubsub_topic_iam_member" "crawl" {
  project = var.project
  topic   = google_pubsub_topic.topic["batches"].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.account["crawl"].member
}

# A batch that embed tried often enough is a dead letter by its own count.
resource "google_pubsub_topic_iam_member" "embed" {
  project = var.project
  topic   = google_pubsub_topic.topic["dead-letters"].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.account["embed"].member
}

# Only an owner with a key can push items through search.
resource "google_pubsub_topic_iam_member" "search" {
  count = var.owner_key_version > 0 ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.topic["batches"].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.account["search"].member
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.functions.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.account["build"].member
}

# A function is public, or callable at all, through its underlying Cloud Run service.
resource "google_cloud_run_v2_service_iam_member" "invoker" {
  #checkov:skip=CKV_GCP_102: search is public on purpose, behind instance caps, rate limits and meters
  for_each = local.invokers

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_secret_manager_secret_iam_member" "owner_key" {
  count = var.owner_key_version > 0 ? 1 : 0

  project   = var.project
  secret_id = google_secret_manager_secret.owner_key[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.account["search"].member
}

resource "google_secret_manager_secret_iam_member" "source" {
  for_each = toset(values(var.source_secrets))

  project   = var.project
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.account["crawl"].member

  depends_on = [google_project_service.service]
}

# The owner's own buckets: crawl lists them, embed reads the pictures.
resource "google_storage_bucket_iam_member" "read" {
  for_each = {
    for pair in setproduct(["crawl", "embed"], toset([for one in var.read_buckets : split("/", one)[2]])) :
    "${pair[0]} ${pair[1]}" => { account = pair[0], bucket = pair[1] }
  }

  bucket = each.value.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.account[each.value.account].member
}

# A grant is known everywhere some time after it was made, and what needs it to be made does not wait. Waits again only
# when one of these grants is another one.
resource "terraform_data" "permissions" {
  triggers_replace = concat(
    [google_artifact_registry_repository_iam_member.build.id, google_project_iam_member.build_sources.id],
    [for grant in google_project_iam_member.role : grant.id],
    [google_storage_bucket_iam_member.role["build"].id],
    [for grant in google_secret_manager_secret_iam_member.owner_key : grant.id],
    [for grant in google_secret_manager_secret_iam_member.source : grant.id],
  )

  provisioner "local-exec" {
    command = "sleep ${var.permissions_wait_s}"
  }
}
