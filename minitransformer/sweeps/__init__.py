"""Many configurations, trained once each and kept as facts."""
