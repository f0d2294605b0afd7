"""The leaderboard of one or several stores: a self-contained page, a Markdown file and copies of the records."""
