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
  description = "Region of everything. Cloud Storage is free in these three only."

  validation {
    condition     = contains(["us-central1", "us-east1", "us-west1"], var.region)
    error_message = "Cloud Storage is free in us-central1, us-east1 and us-west1 only: choose one of them."
  }
}

variable "index" {
  type        = string
  default     = "default"
  description = "Name of the index: prefix of its objects and of its Firestore collections."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.index))
    error_message = "An index name has 1 to 31 lower-case letters, digits and hyphens and starts with a letter."
  }
}

variable "bundles" {
  type        = string
  default     = "../build/bundles"
  description = "Folder in which `scripts/bundle.py` left one zip for each function."
}

variable "runtime" {
  type        = string
  default     = "python311"
  description = "Runtime of the functions. constraints.txt is resolved for it."

  validation {
    condition     = can(regex("^python3[0-9]{2}$", var.runtime))
    error_message = "A Python runtime of Cloud Run functions reads like python311."
  }
}

variable "model" {
  type        = string
  default     = "auto"
  description = "Name of the model in the bundles; `auto` is what it was found to mean where they were made."
}

variable "metrics" {
  type        = bool
  default     = false
  description = "Whether searches may name SciPy's metrics: true deploys the search function with SciPy, whose size `visor cost --metrics true` shows."
}

variable "time_zone" {
  type        = string
  default     = "Etc/UTC"
  description = "Time zone of both schedules (a tz database name)."
}

variable "crawl_schedule" {
  type        = string
  default     = "17 3 * * *"
  description = "When crawl runs (cron). A run that does not finish goes on at the next, so daily suits a weekly re-crawl."
}

variable "compact_schedule" {
  type        = string
  default     = "47 */6 * * *"
  description = "When compact runs (cron). It costs nothing where there is nothing to merge."
}

variable "crawl_budget_s" {
  type        = number
  default     = 1500
  description = "Seconds after which a crawl run stops and leaves the rest to the next. Less than its time-out of 1,800."

  validation {
    condition     = var.crawl_budget_s > 0 && var.crawl_budget_s <= 1740
    error_message = "A crawl run needs a minute to save before its time-out of 1,800 s: at most 1740."
  }
}

variable "freshness_s" {
  type        = number
  default     = 30
  description = "Seconds for which a search instance trusts what it knows of new commits. One Firestore read each time."

  validation {
    condition     = var.freshness_s >= 5
    error_message = "Below 5 s the reads for freshness alone would use up the free tier."
  }
}

variable "embed_attempts_max" {
  type        = number
  default     = 5
  description = "Deliveries of a batch before it becomes a dead letter."

  validation {
    condition     = var.embed_attempts_max >= 5 && var.embed_attempts_max <= 100
    error_message = "Pub/Sub takes 5 to 100 attempts."
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
  description = "vCPU, memory and highest number of instances of each function. `visor cost` says what a change uses."

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.instances >= 1 && size.instances <= 5])
    error_message = "The highest number of instances is 1 to 5: it is what bounds a bill."
  }

  validation {
    condition     = var.sizes.crawl.instances == 1 && var.sizes.compact.instances == 1
    error_message = "Two crawls or two merges at once only redo each other's work: leave their instances at 1."
  }
}

variable "search_concurrency" {
  type        = number
  default     = 8
  description = "Requests that one search instance takes at once. It decodes one picture at a time all the same."

  validation {
    condition     = var.search_concurrency >= 1 && var.search_concurrency <= 80
    error_message = "1 to 80."
  }
}

variable "cors_origins" {
  type        = list(string)
  default     = ["https://storage.googleapis.com"]
  description = "Origins whose pages may call the endpoint. The default is where the site bucket's page is reached."

  validation {
    condition     = length(var.cors_origins) > 0 && alltrue([for o in var.cors_origins : can(regex("^https://[^/*]+$", o))])
    error_message = "Each origin reads like https://shop.example, with no path and no star."
  }
}

variable "quota_share" {
  type        = number
  default     = 0.9
  description = "Share of each free allowance that Visor may use before it postpones crawls and answers 429."

  validation {
    condition     = var.quota_share > 0 && var.quota_share <= 1
    error_message = "More than 0, at most 1 (which leaves nothing for what Visor does not count)."
  }
}

variable "unsafe_query" {
  type        = number
  default     = 0.9
  description = "Probability from which an unsafe query is not answered. A shop of swimwear may want more; above 1, every query is answered."

  validation {
    condition     = var.unsafe_query > 0 && var.unsafe_query <= 2
    error_message = "More than 0, at most 2 (above 1 the check is off)."
  }
}

variable "unsafe_item" {
  type        = number
  default     = 0.85
  description = "Probability from which an unsafe picture is not indexed. Above 1, every picture is."

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
  description = "Key with which the owner searches from the reserve; it goes to Secret Manager and never into the state."

  validation {
    condition     = var.owner_key == null || length(coalesce(var.owner_key, "-")) >= 20
    error_message = "A key has at least 20 characters, e.g. of `openssl rand -base64 24`."
  }
}

variable "owner_key_version" {
  type        = number
  default     = 0
  description = "0: no key. Raise it by one whenever owner_key is set or changed."

  validation {
    condition     = var.owner_key_version >= 0 && floor(var.owner_key_version) == var.owner_key_version
    error_message = "A whole number, 0 or more."
  }
}

variable "key_required" {
  type        = bool
  default     = false
  description = "True: search answers only requests that carry the owner key (needs owner_key)."

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
  })
  default     = {}
  description = "Monthly budget in the billing account's currency, and the share of it at which the endpoint closes."

  validation {
    condition     = var.budget.amount >= 1 && floor(var.budget.amount) == var.budget.amount && var.budget.close_at > 0
    error_message = "The amount is a whole number from 1, the share more than 0."
  }
}

variable "log_retention_days" {
  type        = number
  default     = 30
  description = "Days for which logs are kept. More than 30 are billed."

  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 30
    error_message = "1 to 30: longer retention is billed."
  }
}

variable "protect_data" {
  type        = bool
  default     = false
  description = "True: `terraform destroy` refuses to delete the database and buckets that hold objects."
}
