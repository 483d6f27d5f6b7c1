# What is here: how long logs are kept and which are not taken in. 50 GiB a month are free.

resource "google_logging_project_bucket_config" "default" {
  project        = var.project
  location       = "global"
  bucket_id      = "_Default"
  retention_days = var.log_retention_days

  depends_on = [google_project_service.service]
}

# Every request leaves a line of Cloud Run's own beside Visor's; what went well needs only one of them.
resource "google_logging_project_exclusion" "requests" {
  project     = var.project
  name        = "visor-successful-requests"
  description = "Cloud Run's own lines about requests that went well"
  filter      = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=~\"^visor-\" AND log_id(\"run.googleapis.com/requests\") AND httpRequest.status<400"

  depends_on = [google_project_service.service]
}
