"""Credit of operators: monthly grades by published arithmetic, and self-commitments."""
