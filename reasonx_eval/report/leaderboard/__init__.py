"""The leaderboard's page: a template, its style and script, and plots, all in one file without a network."""
