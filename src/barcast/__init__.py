"""barcast: train, compare and serve price-forecasting models for a whole market on one machine."""
