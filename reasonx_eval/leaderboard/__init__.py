"""Reviewed results and the tables made of them: what a leaderboard shows, without how it is drawn."""
