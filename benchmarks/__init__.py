"""Speed of the hot paths beside the formulations that others use, and beside what no form can beat."""
