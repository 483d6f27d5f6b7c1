variable "project" {
  type        = string
  description = "Id of the Google Cloud project. Billing has to be on; nothing is billed within the free tier."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens and starts with a letter."
  }
}

variable "region" {
  type        = string
  default     = "us-central1"
  nullable    = false
  description = "Region of all resources: us-central1, us-east1 or us-west1, the only ones where Cloud Storage is free."

  validation {
    condition     = contains(["us-central1", "us-east1", "us-west1"], var.region)
    error_message = "Cloud Storage is free in us-central1, us-east1 and us-west1 only: choose one of them."
  }
}

variable "index" {
  type        = string
  default     = "default"
  nullable    = false
  description = "Name of the index: prefix of its objects and of its Firestore collections."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.index))
    error_message = "An index name has 1 to 31 lower-case letters, digits and hyphens and starts with a letter."
  }
}

variable "bundles" {
  type        = string
  default     = "../build/bundles"
  nullable    = false
  description = "Folder where `scripts/bundle.py` wrote a zip and a folder for each function."
}

variable "runtime" {
  type        = string
  default     = "python311"
  nullable    = false
  description = "Runtime of the functions. constraints.txt is resolved for this version."

  validation {
    condition     = contains(["python311", "python312", "python313"], var.runtime)
    error_message = "Visor runs on python311, python312 and python313."
  }
}

variable "model" {
  type        = string
  default     = "auto"
  nullable    = false
  description = "Name of the model in the bundles; `auto` is the default, nsfwjs+efficientnet_lite0."
}

variable "metrics" {
  type        = bool
  default     = false
  nullable    = false
  description = "Whether searches may use SciPy's metrics. True deploys the search function with SciPy; `visor cost --metrics true` shows its size."
}

variable "telemetry" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "OpenTelemetry's variables for the functions, such as OTEL_EXPORTER_OTLP_ENDPOINT, to which they then send traces. Empty: no traces."

  validation {
    condition     = alltrue([for name in keys(var.telemetry) : can(regex("^OTEL_[A-Z_]+$", name))])
    error_message = "OpenTelemetry's variables read like OTEL_EXPORTER_OTLP_ENDPOINT."
  }
}

variable "time_zone" {
  type        = string
  default     = "Etc/UTC"
  nullable    = false
  description = "Time zone of both schedules (a tz database name)."

  validation {
    condition     = can(regex("^[A-Z][A-Za-z]*(/[A-Za-z0-9_+-]+)*$", var.time_zone))
    error_message = "A time zone reads like Europe/Berlin or Etc/UTC."
  }
}

variable "crawl_schedule" {
  type        = string
  default     = "17 3 * * *"
  nullable    = false
  description = "When crawl runs (cron). The next run continues an unfinished one, so a daily schedule suits weekly re-crawls."

  validation {
    condition     = can(regex("^([0-9*/,A-Za-z-]+ ){4}[0-9*/,A-Za-z-]+$", var.crawl_schedule))
    error_message = "A schedule has five fields, minute hour day month weekday, as in: 17 3 * * *"
  }
}

variable "compact_schedule" {
  type        = string
  default     = "47 */6 * * *"
  nullable    = false
  description = "When compact runs (cron). A run with nothing to merge costs nothing."

  validation {
    condition     = can(regex("^([0-9*/,A-Za-z-]+ ){4}[0-9*/,A-Za-z-]+$", var.compact_schedule))
    error_message = "A schedule has five fields, minute hour day month weekday, as in: 47 */6 * * *"
  }
}

variable "crawl_budget_s" {
  type        = number
  default     = 1500
  nullable    = false
  description = "Seconds after which a crawl run stops and leaves the rest to the next run. Must be less than its time-out of 1,800."

  validation {
    condition     = var.crawl_budget_s > 0 && var.crawl_budget_s <= 1740
    error_message = "A crawl run needs a minute to save before its time-out of 1,800 s: at most 1740."
  }
}

variable "freshness_s" {
  type        = number
  default     = 30
  nullable    = false
  description = "Seconds between a search instance's checks for new commits. Each check is one Firestore read."

  validation {
    condition     = var.freshness_s >= 5
    error_message = "Below 5 s the reads for freshness alone would use up the free tier."
  }
}

variable "embed_attempts_max" {
  type        = number
  default     = 5
  nullable    = false
  description = "Tries of a batch before items that cannot be fetched count as failed and a batch that crashes becomes a dead letter. A delivery that finds every instance busy does not count."

  validation {
    condition     = var.embed_attempts_max >= 1 && var.embed_attempts_max <= 50 && floor(var.embed_attempts_max) == var.embed_attempts_max
    error_message = "A whole number from 1 to 50: Pub/Sub gives up after 100 deliveries, tried or not."
  }
}

variable "sizes" {
  type = object({
    crawl   = optional(object({ cpu = optional(number, 0.5), memory_gib = optional(number, 0.5), instances = optional(number, 1) }), {})
    embed   = optional(object({ cpu = optional(number, 1), memory_gib = optional(number, 1), instances = optional(number, 2) }), {})
    compact = optional(object({ cpu = optional(number, 1), memory_gib = optional(number, 2), instances = optional(number, 1) }), {})
    search  = optional(object({ cpu = optional(number, 1), memory_gib = optional(number, 1), instances = optional(number, 2) }), {})
  })
  default     = {}
  nullable    = false
  description = "vCPU, memory and maximum number of instances of each function. `visor cost` shows what a change uses."

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.instances >= 1 && size.instances <= 5])
    error_message = "The highest number of instances is 1 to 5: it is what bounds a bill."
  }

  validation {
    condition     = var.sizes.crawl.instances == 1 && var.sizes.compact.instances == 1
    error_message = "Two crawls or two merges at once only redo each other's work: leave their instances at 1."
  }

  # cloud.google.com/run/docs/configuring/services/cpu and memory-limits.
  validation {
    condition     = alltrue([for size in values(var.sizes) : contains([1, 2, 4, 6, 8], size.cpu) || (size.cpu >= 0.08 && size.cpu < 1 && floor(size.cpu * 1000) == size.cpu * 1000)])
    error_message = "Cloud Run has 1, 2, 4, 6 and 8 vCPUs, and from 0.08 to less than 1 in steps of 0.001."
  }

  validation {
    condition = alltrue([for size in values(var.sizes) :
      size.memory_gib * 1024 == floor(size.memory_gib * 1024) &&
      size.memory_gib >= lookup({ "4" = 2, "6" = 4, "8" = 4 }, tostring(size.cpu), 0.125) &&
      size.memory_gib <= (size.cpu < 0.5 ? 0.5 : size.cpu < 1 ? 1 : lookup({ "1" = 4, "2" = 8, "4" = 16, "6" = 24, "8" = 32 }, tostring(size.cpu), 1))
    ])
    error_message = "Cloud Run gives memory by vCPUs: at most 0.5 GiB to less than 0.5, 1 GiB to less than 1, 4 to 1, 8 to 2, 16 to 4, 24 to 6, 32 to 8; at least 2 GiB to 4 and 4 GiB to 6 or 8; and 0.125 GiB to any."
  }
}

variable "search_concurrency" {
  type        = number
  default     = 8
  nullable    = false
  description = "Requests that one search instance handles at once. It still decodes one picture at a time."

  validation {
    condition     = var.search_concurrency >= 1 && var.search_concurrency <= 80 && floor(var.search_concurrency) == var.search_concurrency
    error_message = "A whole number from 1 to 80."
  }

  validation {
    condition     = var.sizes.search.cpu >= 1 || var.search_concurrency == 1
    error_message = "Cloud Run gives an instance with less than 1 vCPU one request at a time: set search_concurrency = 1, or sizes.search.cpu = 1."
  }
}

variable "cors_origins" {
  type        = list(string)
  default     = null
  description = "Origins whose pages may call the endpoint. By default the origin of the site bucket's page, or none if the function serves the page."

  validation {
    condition     = alltrue([for o in coalesce(var.cors_origins, []) : can(regex("^https://[^/*]+$", o))])
    error_message = "Each origin reads like https://shop.example, with no path and no star."
  }
}

variable "quota_share" {
  type        = number
  default     = 0.9
  nullable    = false
  description = "Share of each free allowance that Visor may use before it postpones crawls and answers 429."

  validation {
    condition     = var.quota_share > 0 && var.quota_share <= 1
    error_message = "More than 0, at most 1 (which leaves nothing for what Visor does not count)."
  }
}

variable "unsafe_query" {
  type        = number
  default     = 0.9
  nullable    = false
  description = "Queries at least this likely to be unsafe are not answered. A swimwear shop may want a higher value; above 1, every query is answered."

  validation {
    condition     = var.unsafe_query > 0 && var.unsafe_query <= 2
    error_message = "More than 0, at most 2 (above 1 the check is off)."
  }
}

variable "unsafe_item" {
  type        = number
  default     = 0.85
  nullable    = false
  description = "Pictures at least this likely to be unsafe are not indexed. Above 1, every picture is indexed."

  validation {
    condition     = var.unsafe_item > 0 && var.unsafe_item <= 2
    error_message = "More than 0, at most 2 (above 1 the check is off)."
  }
}

variable "owner_key" {
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
  description = "Key that lets the owner search from the reserve. It is stored in Secret Manager and never in the state."

  validation {
    condition     = var.owner_key == null || length(coalesce(var.owner_key, "-")) >= 20
    error_message = "A key has at least 20 characters, e.g. of `openssl rand -base64 24`."
  }
}

variable "owner_key_version" {
  type        = number
  default     = 0
  nullable    = false
  description = "0: no key. Raise it by one whenever owner_key is set or changed."

  validation {
    condition     = var.owner_key_version >= 0 && floor(var.owner_key_version) == var.owner_key_version
    error_message = "A whole number, 0 or more."
  }
}

variable "key_required" {
  type        = bool
  default     = false
  nullable    = false
  description = "Whether search answers only requests that carry the owner key (needs owner_key)."

  validation {
    condition     = !var.key_required || var.owner_key_version > 0
    error_message = "A key can be required only if there is one: set owner_key and owner_key_version."
  }
}

variable "billing_account" {
  type        = string
  default     = null
  description = "Id of the billing account. If set, a budget closes the public endpoint when the project costs money."

  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "A billing account's id reads like 0A1B2C-3D4E5F-6A7B8C."
  }
}

variable "budget" {
  type = object({
    amount   = optional(number, 1)
    currency = optional(string)
    close_at = optional(number, 0.5)
    spend    = optional(number, 0)
    dollar   = optional(number, 1)
  })
  default     = {}
  nullable    = false
  description = "In the billing account's currency: what Visor may spend a month (0: nothing), and the price of a US dollar. If nothing may be spent: also the amount of the alert and the share of it at which the endpoint closes."

  validation {
    condition     = var.budget.amount >= 1 && floor(var.budget.amount) == var.budget.amount && var.budget.close_at > 0
    error_message = "The amount is a whole number from 1, the share more than 0."
  }

  validation {
    condition     = var.budget.spend >= 0 && var.budget.dollar > 0
    error_message = "The budget is 0 or more, and the price of a dollar more than 0."
  }

  validation {
    condition     = var.budget.currency == null || can(regex("^[A-Z]{3}$", var.budget.currency))
    error_message = "A currency has three capital letters, and is that of the billing account: USD, EUR."
  }
}

variable "log_retention_days" {
  type        = number
  default     = 30
  nullable    = false
  description = "Days for which logs are kept; more than 30 would be billed."

  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 30
    error_message = "1 to 30: longer retention is billed."
  }
}

variable "protect_data" {
  type        = bool
  default     = false
  nullable    = false
  description = "If true, `visor destroy` refuses, and Google refuses to delete the database and buckets that hold objects."
}

variable "public" {
  type        = string
  default     = "bucket"
  nullable    = false
  description = "How the public reaches Visor. `bucket`: the page is in a public bucket, the endpoint open to allUsers. `function`: the search function serves page and endpoint, with its invoker check off and no public bucket; for organisations that forbid public buckets or allUsers."

  validation {
    condition     = contains(["bucket", "function"], var.public)
    error_message = "bucket or function."
  }
}

variable "publish" {
  type        = bool
  default     = false
  description = "Whether merges also publish the index to the site's bucket, so that the page can search it without the function. `visor cost --publish true` shows what that uses."
  nullable    = false

  validation {
    condition     = !var.publish || var.public == "bucket"
    error_message = "Publishing needs the site's bucket: public = \"bucket\"."
  }
}

variable "permissions_wait_s" {
  type        = number
  default     = 120
  nullable    = false
  description = "Seconds between granting permissions and building functions with them. According to Google, permissions typically take effect in two minutes."

  validation {
    condition     = var.permissions_wait_s >= 0 && var.permissions_wait_s <= 600
    error_message = "0 to 600."
  }
}

variable "settings" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Further settings from docs/operations.md, named like `links_a_day` or VISOR_LINKS_A_DAY. `visor deploy` checks them."

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^[A-Za-z_]+$", name))])
    error_message = "A setting's name reads like links_a_day or VISOR_LINKS_A_DAY."
  }

  validation {
    condition = length(setintersection([for name in keys(var.settings) : trimprefix(lower(name), "visor_")], [
      "allow_buckets", "backend", "bucket", "budget", "budget_dollar", "cors_origins", "crawl_budget_s", "database", "dead_letter_subscription", "dead_letter_topic",
      "embed_attempts_max", "fetch_instances", "freshness_s", "function_cpu", "function_memory_gib", "home", "index", "key_required",
      "model", "models", "models_from", "owner_key", "page_config", "pixels_max", "project", "quota_share", "subscription", "threads", "topic", "unsafe_item", "unsafe_query",
    ])) == 0
    error_message = "Terraform sets one of these itself: backend, project, names of resources, sizes; or from a variable of its own, as index, model, cors_origins, quota_share, unsafe_item, read_buckets, page."
  }
}

variable "source_secrets" {
  type        = map(string)
  default     = {}
  nullable    = false
  description = "Secrets for visor.toml: maps each NAME written there as $${NAME} to the id of a secret in Secret Manager. Crawl reads its newest version."

  validation {
    condition     = alltrue([for name, secret in var.source_secrets : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && !startswith(upper(name), "VISOR_") && can(regex("^[A-Za-z0-9_-]{1,255}$", secret))])
    error_message = "Each reads like MARKET_KEY = \"market-key\": an environment variable (not one of VISOR_…) and the id of a secret, made by `gcloud secrets create market-key --data-file=-`."
  }
}

variable "bulk" {
  type        = bool
  default     = false
  nullable    = false
  description = "Whether `visor bulk` may run on Dataflow. True creates an account for its workers and a bucket for a job's temporary files. Neither costs anything until a job runs (docs/bulk.md)."
}

variable "read_buckets" {
  type        = set(string)
  default     = []
  nullable    = false
  description = "Private buckets that sources of kind `bucket` read, as gs://NAME or gs://NAME/PREFIX. Crawl and embed may read them."

  validation {
    condition     = alltrue([for bucket in var.read_buckets : can(regex("^gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^,]*)?$", bucket))])
    error_message = "Each reads like gs://pictures or gs://pictures/2026/: buckets of Google only, others need public addresses."
  }
}

variable "page" {
  type = object({
    title    = optional(string, "Visor")
    tagline  = optional(string)
    language = optional(string)
    notes    = optional(list(object({ text = string, href = optional(string) })), [])
    models   = optional(string)
  })
  default     = {}
  nullable    = false
  description = "The page's title, tagline, language (en, de, fr, es, or a regional one such as de-CH; by default the visitor's), and notes, each with a text and an optional href. Also models: the URL of a folder that serves the model's files to visitors' devices instead of the site's bucket."

  validation {
    condition     = var.page.language == null || can(regex("^[a-z]{2,3}(-[A-Za-z0-9]+)*$", var.page.language))
    error_message = "A language reads like en or pt-BR."
  }

  validation {
    condition     = var.page.models == null || can(regex("^https://.+/$", var.page.models))
    error_message = "The address of a folder begins with https:// and ends with a slash."
  }
}
