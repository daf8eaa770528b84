"""What acclimate costs and what it is worth; figures are printed, never asserted."""
