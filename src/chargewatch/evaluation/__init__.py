"""How well assessments match a known truth: scores, bounds, many seeds."""
