"""From the broker, or the HTTP door, into the database: nothing lost, nothing twice."""
