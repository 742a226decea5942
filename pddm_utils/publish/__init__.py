"""What maintainers run: shipped models with their cards, tables of the pages, pictures."""
