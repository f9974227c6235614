"""Who answers relative questions about two points of a photo."""
