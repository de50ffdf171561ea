"""The integrity signals, one rule a module; `signals.registry` lists them."""
