output "page" {
  description = "Address of the page."
  value       = var.public == "function" ? "${google_cloudfunctions2_function.function["search"].service_config[0].uri}/" : "https://storage.googleapis.com/${google_storage_bucket.bucket["site"].name}/index.html"
}

output "site" {
  description = "Where scripts/publish.py puts the page: a bucket, or the function that brings it along."
  value       = var.public == "function" ? "run://${var.project}/${var.region}/visor-search" : "gs://${google_storage_bucket.bucket["site"].name}"
}

output "page_config" {
  description = "What the page's config.json says, but for the endpoint."
  value       = local.page_config
}

output "protected" {
  description = "Whether `visor destroy` refuses (protect_data)."
  value       = tostring(var.protect_data)
}

output "endpoint" {
  description = "Address of the search endpoint, which the page's config.json names."
  value       = google_cloudfunctions2_function.function["search"].service_config[0].uri
}

output "crawl_now" {
  description = "How to crawl now instead of waiting for the schedule."
  value       = "gcloud scheduler jobs run ${google_cloud_scheduler_job.job["crawl"].name} --location=${var.region} --project=${var.project}"
}

output "compact_now" {
  description = "How to merge now."
  value       = "gcloud scheduler jobs run ${google_cloud_scheduler_job.job["compact"].name} --location=${var.region} --project=${var.project}"
}

output "buckets" {
  description = "Names of the buckets, by what they hold."
  value       = { for key, bucket in google_storage_bucket.bucket : key => bucket.name }
}

output "settings" {
  description = "Environment with which `visor` on your own machine works on this index (stats, dlq, crawl)."
  value       = { for name, value in local.settings : name => value if contains(["VISOR_BACKEND", "VISOR_INDEX", "VISOR_PROJECT", "VISOR_BUCKET", "VISOR_TOPIC", "VISOR_SUBSCRIPTION", "VISOR_DEAD_LETTER_TOPIC", "VISOR_DEAD_LETTER_SUBSCRIPTION", "VISOR_DATABASE"], name) }
}
