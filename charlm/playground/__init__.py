"""The playground: a page that writes with a model. page/ has its JavaScript."""
