# What is here: the buckets, in one free region. Free are 5 GB, 5,000 Class A and 50,000 Class B operations a month.

locals {
  # Soft delete is off everywhere: it would keep billing what a merge or an upload has replaced.
  buckets = merge({
    index   = { name = "${var.project}-visor-index", public = false }
    sources = { name = "${var.project}-visor-sources", public = false }
    },
    var.bulk ? { beam = { name = "${var.project}-visor-beam", public = false } } : {},
    var.public == "function" ? {} : { site = { name = "${var.project}-visor-site", public = true } },
  )

  # Without bundles (after `make clean`, on another machine) what is there can still be changed and destroyed.
  bundle_files  = { for name in keys(local.functions) : name => "${var.bundles}/${local.bundles[name]}.zip" }
  bundle_hashes = { for name, file in local.bundle_files : name => fileexists(file) ? filesha256(file) : "gone" }
}

resource "google_storage_bucket" "bucket" {
  #checkov:skip=CKV_GCP_62: access logs would be objects, that is Class A operations and storage nobody asked for
  #checkov:skip=CKV_GCP_78: versions of overwritten objects are billed; shards and segments are written once anyway
  #checkov:skip=CKV_GCP_114: enforced on all buckets but the site, which is there to be public
  for_each = local.buckets

  project                     = var.project
  name                        = each.value.name
  location                    = var.region
  storage_class               = "STANDARD"
  force_destroy               = !var.protect_data
  uniform_bucket_level_access = true
  public_access_prevention    = each.value.public ? "inherited" : "enforced"

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  # What a bulk's jobs leave is of no use once they have ended.
  dynamic "lifecycle_rule" {
    for_each = each.key == "beam" ? [7] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        age = lifecycle_rule.value
      }
    }
  }

  depends_on = [google_project_service.service]
}

# objectViewer would also let strangers list the bucket, which is a Class A operation each; this role only reads.
resource "google_storage_bucket_iam_member" "public" {
  #checkov:skip=CKV_GCP_28: the site bucket is the page; only it is public
  count = var.public == "function" ? 0 : 1

  bucket = google_storage_bucket.bucket["site"].name
  role   = "roles/storage.legacyObjectReader"
  member = "allUsers"
}

resource "google_storage_bucket_object" "bundle" {
  for_each = local.functions

  bucket = google_storage_bucket.bucket["sources"].name
  name   = "functions/${each.key}-${local.bundle_hashes[each.key]}.zip"
  source = local.bundle_files[each.key]

  lifecycle {
    precondition {
      condition     = local.bundle_hashes[each.key] != "gone"
      error_message = "${local.bundle_files[each.key]} is not there: run `visor deploy`, which makes it."
    }
  }
}
