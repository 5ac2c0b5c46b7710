"""Several processes, on one machine or many, that share the work; Dask is one way to have them."""
