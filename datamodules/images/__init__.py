"""What every data set is made of: the module, loading, caches, pictures, downloads."""
