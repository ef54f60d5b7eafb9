"""Tables and figures from a store's rows; it reads, and never writes to the store."""
