"""The leaderboard: one self-contained page of one or several stores, a Markdown table, and the records behind them."""
