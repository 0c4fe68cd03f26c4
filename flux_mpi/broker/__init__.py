"""One rank of an instance: routes messages, offers services, numbers events, keeps attributes."""
