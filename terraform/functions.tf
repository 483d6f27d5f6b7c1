# What is here: the functions. Every setting that could cost money is written down, none is left to its default.

locals {
  internal = "ALLOW_INTERNAL_ONLY"

  # With a sum to spend: as many of embed and search as it pays for a day and a night, at 2.29 US dollars a vCPU with 1 GiB.
  paid_instances = min(20, floor(var.budget.spend / var.budget.dollar / (2 * 2.29)))

  # Cloud Run functions bill vCPU and memory from a request's start to its end, rounded up to 100 ms.
  functions = merge({
    crawl = {
      account     = "crawl"
      cpu         = var.sizes.crawl.cpu
      memory_gib  = var.sizes.crawl.memory_gib
      instances   = var.sizes.crawl.instances
      concurrency = 1
      timeout     = 1800
      ingress     = local.internal
      environment = local.every_setting
      secrets     = { for name, secret in var.source_secrets : name => { secret = secret, version = "latest" } }
    }
    embed = {
      account     = "embed"
      cpu         = var.sizes.embed.cpu
      memory_gib  = var.sizes.embed.memory_gib
      instances   = max(var.sizes.embed.instances, local.paid_instances)
      concurrency = 1
      timeout     = 540
      ingress     = local.internal
      environment = local.every_setting
    }
    compact = {
      account     = "compact"
      cpu         = var.sizes.compact.cpu
      memory_gib  = var.sizes.compact.memory_gib
      instances   = var.sizes.compact.instances
      concurrency = 1
      timeout     = 1800
      ingress     = local.internal
      environment = merge(local.every_setting, var.publish ? { VISOR_SITE = google_storage_bucket.bucket["site"].name } : {})
    }
    search = {
      account     = "search"
      cpu         = var.sizes.search.cpu
      memory_gib  = var.sizes.search.memory_gib
      instances   = max(var.sizes.search.instances, local.paid_instances)
      concurrency = var.search_concurrency
      timeout     = 60
      ingress     = "ALLOW_ALL"
      environment = merge(local.every_setting, local.search_environment)
      secrets     = { for one in google_secret_manager_secret_version.owner_key : "VISOR_OWNER_KEY" => { secret = google_secret_manager_secret.owner_key[0].secret_id, version = one.version } }
    }
    },
    var.billing_account == null ? {} : {
      switch = {
        account     = "switch"
        cpu         = 0.167
        memory_gib  = 0.25
        instances   = 1
        concurrency = 1
        timeout     = 60
        ingress     = local.internal
        environment = local.switch_environment
      }
    },
  )

  # The zip of each function. Named metrics need SciPy, which search has only in the zip of a further folder.
  bundles = merge({ for name in keys(local.functions) : name => name }, var.metrics ? { search = "metrics/search" } : {})

  # Read by visor.settings. A test holds these names against its fields.
  settings = {
    VISOR_BACKEND                  = "gcp"
    VISOR_HOME                     = "/workspace"
    VISOR_INDEX                    = var.index
    VISOR_PROJECT                  = var.project
    VISOR_BUCKET                   = google_storage_bucket.bucket["index"].name
    VISOR_TOPIC                    = google_pubsub_topic.topic["batches"].name
    VISOR_SUBSCRIPTION             = "visor-batches-embed"
    VISOR_DEAD_LETTER_TOPIC        = google_pubsub_topic.topic["dead-letters"].name
    VISOR_DEAD_LETTER_SUBSCRIPTION = "visor-dead-letters"
    VISOR_DATABASE                 = google_firestore_database.database.name
    VISOR_MODEL                    = var.model
    VISOR_THREADS                  = "1"
    VISOR_PIXELS_MAX               = "40000000"
    VISOR_CRAWL_BUDGET_S           = tostring(var.crawl_budget_s)
    VISOR_EMBED_ATTEMPTS_MAX       = tostring(var.embed_attempts_max)
    VISOR_FRESHNESS_S              = tostring(var.freshness_s)
    VISOR_CORS_ORIGINS             = join(",", local.cors_origins)
    VISOR_QUOTA_SHARE              = tostring(var.quota_share)
    VISOR_BUDGET                   = tostring(var.budget.spend)
    VISOR_BUDGET_DOLLAR            = tostring(var.budget.dollar)
    VISOR_KEY_REQUIRED             = tostring(var.key_required)
    VISOR_UNSAFE_QUERY             = tostring(var.unsafe_query)
    VISOR_UNSAFE_ITEM              = tostring(var.unsafe_item)
    VISOR_ALLOW_BUCKETS            = join(",", var.read_buckets)
  }

  cors_origins = var.cors_origins != null ? var.cors_origins : var.public == "function" ? [] : ["https://storage.googleapis.com"]

  # What the owner sets beside them; Terraform's own win.
  every_setting = merge(var.telemetry, { for name, value in var.settings : "VISOR_${trimprefix(upper(name), "VISOR_")}" => value }, local.settings)

  # Read by functions-framework. As many threads again as Cloud Run sends requests at once: one whose client went away in
  # the middle of its upload keeps its thread for a while.
  # Three calls to a store that does not answer, and a picture that is slow to come, fit in search's 60 s.
  search_environment = {
    VISOR_PAGE_CONFIG      = var.public == "function" ? local.page_config : ""
    THREADS                = tostring(2 * var.search_concurrency)
    VISOR_STORE_DEADLINE_S = "8"
    VISOR_FETCH_TIMEOUT_S  = "12"
  }
}

resource "google_cloudfunctions2_function" "function" {
  #checkov:skip=CKV_GCP_124: search is the public endpoint; the others take requests from inside only
  for_each = local.functions

  project     = var.project
  name        = "visor-${each.key}"
  location    = var.region
  description = local.accounts[each.value.account]

  build_config {
    runtime           = var.runtime
    entry_point       = each.key
    docker_repository = google_artifact_registry_repository.functions.id
    service_account   = google_service_account.account["build"].id

    automatic_update_policy {}

    source {
      storage_source {
        bucket = google_storage_bucket.bucket["sources"].name
        object = google_storage_bucket_object.bundle[each.key].name
      }
    }
  }

  service_config {
    available_cpu                    = tostring(each.value.cpu)
    available_memory                 = "${each.value.memory_gib * 1024}Mi"
    timeout_seconds                  = each.value.timeout
    min_instance_count               = 0
    max_instance_count               = each.value.instances
    max_instance_request_concurrency = each.value.concurrency
    ingress_settings                 = each.value.ingress
    all_traffic_on_latest_revision   = true
    service_account_email            = google_service_account.account[each.value.account].email
    environment_variables = merge(each.value.environment, each.key == "switch" ? {} : {
      VISOR_FUNCTION_CPU        = tostring(each.value.cpu)
      VISOR_FUNCTION_MEMORY_GIB = tostring(each.value.memory_gib)
      # Read by the C library: what a large picture took is given back at once, not kept for another of its kind.
      MALLOC_MMAP_THRESHOLD_ = "262144"
      VISOR_FETCH_INSTANCES  = tostring(each.value.instances)
    })

    dynamic "secret_environment_variables" {
      for_each = lookup(each.value, "secrets", {})

      content {
        key        = secret_environment_variables.key
        project_id = var.project
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }
  }

  depends_on = [terraform_data.permissions, google_storage_bucket_iam_member.role]
}

# Images add up to a few hundred MB, of which 500 MB are free: what is not the newest goes after a day.
resource "google_artifact_registry_repository" "functions" {
  #checkov:skip=CKV_GCP_84: keys of one's own cost money each month; Google encrypts with its own
  project                = var.project
  location               = var.region
  repository_id          = "visor-functions"
  description            = "Images of Visor's functions"
  format                 = "DOCKER"
  cleanup_policy_dry_run = false

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      tag_state  = "ANY"
      older_than = "86400s"
    }
  }

  cleanup_policies {
    id     = "keep-newest"
    action = "KEEP"

    most_recent_versions {
      keep_count = 1
    }
  }

  vulnerability_scanning_config {
    enablement_config = "DISABLED"
  }

  depends_on = [google_project_service.service]
}

resource "google_secret_manager_secret" "owner_key" {
  count = var.owner_key_version > 0 ? 1 : 0

  project   = var.project
  secret_id = "visor-owner-key"

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.service]
}

resource "google_secret_manager_secret_version" "owner_key" {
  count = var.owner_key_version > 0 ? 1 : 0

  secret                 = google_secret_manager_secret.owner_key[0].id
  secret_data_wo         = var.owner_key
  secret_data_wo_version = var.owner_key_version
}
