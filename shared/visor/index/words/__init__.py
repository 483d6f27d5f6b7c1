"""Words: which items say what somebody typed."""
