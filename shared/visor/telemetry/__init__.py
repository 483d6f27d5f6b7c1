"""Telemetry: what a process shows to the outside, as metrics (`metrics`) and traces (`traces`)."""
