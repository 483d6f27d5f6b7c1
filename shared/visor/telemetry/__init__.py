"""Telemetry: what can be seen of a process from outside, as metrics (`metrics`) and traces (`traces`)."""
