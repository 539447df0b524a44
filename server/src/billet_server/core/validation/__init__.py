"""What `core.validate` checks, a file per topic."""
