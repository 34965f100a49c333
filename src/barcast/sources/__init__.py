"""Where prices come from: one file per kind, all giving canonical bars."""
