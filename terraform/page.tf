# What is here: what the page says of itself, and whether there will be anything on it.

locals {
  no_source = "No source is named yet: nothing is crawled until visor.toml names one (docs/sources.md)."

  # bundle.py leaves this beside the bundles; without bundles nothing is known.
  sources_file = "${var.bundles}/sources.json"
  sources      = fileexists(local.sources_file) ? jsondecode(file(local.sources_file)) : null

  # Of a published index the files lie beside it, and its page knows where.
  models = var.page.models != null ? var.page.models : var.public == "function" || var.publish ? null : "./models/"

  page_config = jsonencode({
    for key, value in {
      title    = var.page.title
      tagline  = var.page.tagline
      language = var.page.language
      export   = var.publish ? "./data/" : null
      models   = local.models
      notes    = concat(var.page.notes, try(length(local.sources), 1) == 0 ? [{ text = local.no_source, href = null }] : [])
    } : key => value if value != null
  })
}

check "sources" {
  assert {
    condition     = try(length(local.sources), 1) > 0
    error_message = local.no_source
  }
}
