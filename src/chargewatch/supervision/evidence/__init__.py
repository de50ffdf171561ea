"""Evidence files of flags: their form, where they are kept, and their proof."""
