"""Any web site."""
