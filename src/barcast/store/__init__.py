"""How bars rest on disk: a versioned Delta table with calendar, basis and status."""

from barcast.store.adjust import to_bars
from barcast.store.info import Compaction, StoreInfo
from barcast.store.market import MarketStore
from barcast.store.meta import StoreMeta

__all__ = ["Compaction", "MarketStore", "StoreInfo", "StoreMeta", "to_bars"]
