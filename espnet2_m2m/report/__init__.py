"""The report page, and the tables and pictures of a study."""
