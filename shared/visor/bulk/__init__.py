"""Bulk: a whole catalogue is embedded on Apache Beam, by the code that embeds a batch of a crawl."""
