"""How several forecasts become one: model averaging, routing between models, shrinkage over symbols."""
