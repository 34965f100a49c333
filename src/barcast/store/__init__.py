"""How bars rest on disk: a versioned Delta table with calendar, basis and status."""

from barcast.store.adjust import to_bars
from barcast.store.market import MarketStore, StoreInfo
from barcast.store.meta import StoreMeta

__all__ = ["MarketStore", "StoreInfo", "StoreMeta", "to_bars"]
