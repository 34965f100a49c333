"""Words everyone shares: errors, config, calendars, bars, predictions, run folders."""
