"""Link check: are pictures and pages still there, and what to do if not."""
