"""Evidence files of flags: cut at the end of a run, and computed again from nothing but them."""
