"""Models as a service: one engine for the requests of many, and the interfaces that clients use."""
