"""How bars rest on disk: a versioned Delta table with calendar, basis and status."""
