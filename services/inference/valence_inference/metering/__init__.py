"""Who may use the API and how much: API keys, plans, rate limits and usage."""
