"""What the services may ask of the store: one protocol per noun, with its records beside it. No SQL is seen here."""
