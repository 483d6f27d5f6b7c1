"""Bulk: embeds a whole catalogue on Apache Beam, with the code that embeds a batch of a crawl."""
