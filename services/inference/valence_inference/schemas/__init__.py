"""The requests and responses of the API, one file per noun."""
