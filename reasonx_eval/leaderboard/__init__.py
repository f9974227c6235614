"""Submissions, the tables made of them, and the leaderboard's files."""
