"""Numbers known at the close: one file per family, each declares its look-back."""
