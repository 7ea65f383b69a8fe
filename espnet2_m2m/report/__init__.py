"""What is shown to people: RESULTS.md and the report page."""
