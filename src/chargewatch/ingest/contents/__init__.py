"""How each kind of content becomes rows and is written: one module a kind."""
