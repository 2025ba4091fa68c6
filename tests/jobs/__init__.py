"""Jobs: a data set through a model."""
