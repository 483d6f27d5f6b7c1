"""Free tier: allowances, the quota meter and the cost model."""
